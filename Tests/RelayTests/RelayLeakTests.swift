import Glibc
import SystemdEvent
import TestSupport
import Testing

@testable import Relay

@Suite struct RelayLeakTests {
  @Test("two hundred sessions with all kinds of endings leave no descriptor behind")
  func sessions() async {
    await #expect(processExitsWith: .success) {
      try await inOwnProcess {
        // Whatever is opened once is open after the first.
        try await oneSession(0)
        try await quiet()
        let before = try openDescriptorCount()
        for batch in 0..<25 {
          await withTaskGroup(of: Void.self) { group in
            for index in 0..<8 {
              group.addTask {
                do { try await oneSession(batch * 8 + index) } catch { Issue.record(error) }
              }
            }
          }
        }
        try await quiet()
        #expect(try openDescriptorCount() == before)
      }
    }
  }
}

/// A session with descriptors and bytes under way both ways, that ends in one of eight manners.
@EventLoopActor
private func oneSession(_ number: Int) async throws {
  let session = try Session()
  let file = try pipePair()
  defer {
    close(file.reading)
    close(file.writing)
  }
  try await session.connected.write("{command}", descriptors: [file.reading, file.writing])
  try await session.monitor.write("reply\r\n", descriptors: [file.reading])
  switch number % 8 {
  case 0: try session.connected.endWriting()
  case 1: session.client = nil
  case 2: session.monitor.close()
  case 3:
    session.relay.stop(because: "a test")
    session.client = nil
  case 4:
    try await session.monitor.wait(for: "{command}")
    session.client = nil
  case 5:
    // Descriptors wait behind a full socket when the client goes.
    try session.connected.reads = false
    let (monitor, client) = (session.monitor, session.client)
    try await monitor.write(sample(150_000).map { $0 == 10 ? 11 : $0 }, descriptors: [file.writing])
    try await monitor.write("\r\n", descriptors: [file.writing])
    try await quiet()
    client?.close()
    session.client = nil
  case 6:
    try session.connected.endWriting()
    _ = try await session.monitor.drainNonce()
    session.client = nil
  default:
    session.monitor.reads = false
    try await session.connected.write(sample(100_000), descriptors: [file.reading])
    try await quiet()
    session.client = nil
    session.monitor.reads = true
  }
  if number % 8 != 2 {
    try await session.monitor.answerDrain()
    #expect(try await session.end() == .drained)
  } else {
    async let end = session.end()
    try await session.connected.waitForEnd()
    try session.connected.close()
    #expect(try await end == .monitorGone)
  }
}
