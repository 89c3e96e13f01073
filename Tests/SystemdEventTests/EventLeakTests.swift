import Glibc
import SystemdEvent
import TestSupport
import Testing

@Suite struct EventLeakTests {
  @Test("pairs, sources and messages with descriptors leave nothing open")
  func descriptors() async {
    await #expect(processExitsWith: .success) {
      try await inOwnProcess {
        try await churn(1)
        let before = try openDescriptorCount()
        try await churn(500)
        #expect(try openDescriptorCount() == before)
      }
    }
  }
}

@EventLoopActor
private func churn(_ count: Int) async throws {
  for index in 0..<count {
    let (ours, theirs) = try socketPair()
    let sender = OwnedDescriptor(owning: ours)
    let receiver = OwnedDescriptor(owning: theirs)
    let timer = try EventSource.timer(after: .seconds(1000)) {}
    var source: EventSource? = try EventSource.descriptor(receiver.raw, .readable) { _ in }
    source?.isEnabled = false
    _ = [UInt8(1), 2].withUnsafeBytes { send(sender.raw, isSocket: true, $0, descriptors: [sender.raw, receiver.raw]) }
    if index % 2 == 0 {
      var passed = PassedDescriptors()
      var buffer: [UInt8] = [0]
      _ = buffer.withUnsafeMutableBytes { receive(receiver.raw, isSocket: true, into: $0, descriptors: &passed) }
      let count = passed.raw.count
      #expect(count == 2)
    }
    source = nil
    withExtendedLifetime(timer) {}
  }
  try await quiet()
}
