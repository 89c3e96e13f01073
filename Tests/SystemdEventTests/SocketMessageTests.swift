import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite struct SocketMessageTests {
  /// Reads once; gives what came.
  private func receiveOnce(
    _ descriptor: CInt, isSocket: Bool = true, capacity: Int = 4096, _ descriptors: inout PassedDescriptors
  ) -> (Transfer, [UInt8]) {
    var buffer = [UInt8](repeating: 0, count: capacity)
    let transfer = buffer.withUnsafeMutableBytes { receive(descriptor, isSocket: isSocket, into: $0, descriptors: &descriptors) }
    if case .bytes(let count) = transfer { return (transfer, Array(buffer.prefix(count))) }
    return (transfer, [])
  }

  private func sendAll(_ descriptor: CInt, _ bytes: [UInt8], isSocket: Bool = true, descriptors: [CInt] = []) -> Transfer {
    bytes.withUnsafeBytes { send(descriptor, isSocket: isSocket, $0, descriptors: descriptors) }
  }

  @Test("bytes arrive as they were, as many as fit at a time")
  func bytes() throws {
    let (ours, theirs) = try socketPair()
    defer { closeAll([ours, theirs]) }
    var none = PassedDescriptors()
    #expect(sendAll(ours, [1, 0, 255, 4]) == .bytes(4))
    #expect(receiveOnce(theirs, capacity: 3, &none) == (.bytes(3), [1, 0, 255]))
    #expect(receiveOnce(theirs, &none) == (.bytes(1), [4]))
    #expect(receiveOnce(theirs, &none) == (.wouldBlock, []))
    let isEmpty = none.isEmpty
    #expect(isEmpty)
  }

  @Test(
    "descriptors arrive usable, close-on-exec and in order, and the sender keeps its own", arguments: [1, 2, 3, maximumPassedDescriptors])
  func descriptors(count: Int) throws {
    let (ours, theirs) = try socketPair()
    let files = try (0..<count).map { _ in try pipePair() }
    defer { closeAll([ours, theirs] + files.flatMap { [$0.reading, $0.writing] }) }
    #expect(sendAll(ours, [7, 8], descriptors: files.map(\.writing)) == .bytes(2))
    var passed = PassedDescriptors()
    #expect(receiveOnce(theirs, &passed) == (.bytes(2), [7, 8]))
    let numbers = passed.raw
    #expect(numbers.count == count)
    for (file, descriptor) in zip(files, numbers) {
      #expect(fcntl(descriptor, F_GETFD) == FD_CLOEXEC)
      #expect(write(descriptor, "x", 1) == 1)
      var byte: UInt8 = 0
      #expect(read(file.reading, &byte, 1) == 1)
      #expect(fcntl(file.writing, F_GETFD) >= 0)
    }
  }

  @Test("descriptors of one message do not come with the bytes of the next")
  func boundaries() throws {
    let (ours, theirs) = try socketPair()
    let file = try pipePair()
    defer { closeAll([ours, theirs, file.reading, file.writing]) }
    for text in [[1], [2], [3]] as [[UInt8]] {
      #expect(sendAll(ours, text, descriptors: text == [2] ? [file.reading] : []) == .bytes(1))
    }
    var passed = PassedDescriptors()
    var seen: [UInt8] = []
    while case (.bytes(1...), let bytes) = receiveOnce(theirs, &passed) {
      seen += bytes
      // Never without its own byte, and never after the byte behind that.
      let isEmpty = passed.isEmpty
      #expect(isEmpty == !seen.contains(2))
    }
    let count = passed.raw.count
    #expect(seen == [1, 2, 3] && count == 1)
  }

  @Test("a full socket takes nothing more, and what fits is told")
  func full() throws {
    let (ours, theirs) = try socketPair()
    defer { closeAll([ours, theirs]) }
    let chunk = [UInt8](repeating: 1, count: 1 << 20)
    var sent = 0
    while case .bytes(let count) = sendAll(ours, chunk) { sent += count }
    #expect(sent > 0 && sendAll(ours, [1]) == .wouldBlock)
    var none = PassedDescriptors()
    var received = 0
    while case (.bytes(let count), _) = receiveOnce(theirs, capacity: 65536, &none) { received += count }
    #expect(received == sent)
  }

  @Test("the end of a stream is told, and so is that nobody reads, without a signal")
  func end() throws {
    let (ours, theirs) = try socketPair()
    defer { close(ours) }
    #expect(sendAll(theirs, [9]) == .bytes(1))
    close(theirs)
    var none = PassedDescriptors()
    #expect(receiveOnce(ours, &none) == (.bytes(1), [9]))
    #expect(receiveOnce(ours, &none) == (.bytes(0), []))
    #expect(sendAll(ours, [1]) == .failed(.brokenPipe))
    let file = try pipePair()
    #expect(sendAll(ours, [1], descriptors: [file.reading]) == .failed(.brokenPipe))
    closeAll([file.reading, file.writing])
  }

  @Test("pipes carry bytes, at most a page at a time, and no descriptors")
  func pipes() throws {
    let file = try pipePair()
    defer { closeAll([file.reading, file.writing]) }
    let chunk = (0..<10_000).map { UInt8(truncatingIfNeeded: $0) }
    #expect(sendAll(file.writing, chunk, isSocket: false, descriptors: [file.reading]) == .bytes(4096))
    var none = PassedDescriptors()
    #expect(receiveOnce(file.reading, isSocket: false, capacity: 10_000, &none) == (.bytes(4096), Array(chunk.prefix(4096))))
    let isEmpty = none.isEmpty
    #expect(isEmpty)
  }

  @Test("what is no socket fails as one")
  func notASocket() throws {
    let file = try pipePair()
    defer { closeAll([file.reading, file.writing]) }
    #expect(sendAll(file.writing, [1]) == .failed(.notSocket))
    var none = PassedDescriptors()
    #expect(receiveOnce(file.reading, &none) == (.failed(.notSocket), []))
  }

  private func closeAll(_ descriptors: [CInt]) { for descriptor in descriptors { close(descriptor) } }
}
