import Control
import Glibc
import SystemdEvent
import TestSupport
import Testing

/// Two peers with a pump between them.
@EventLoopActor
private struct Pumped {
  let one: Peer
  let other: Peer
  let pump: StreamPump

  init() throws {
    let left = try SocketPair()
    let right = try SocketPair()
    one = try Peer(left.theirs.duplicate())
    other = try Peer(right.theirs.duplicate())
    pump = try StreamPump(left.takeOurs(), right.takeOurs())
  }
}

@Suite(.onEventLoop) struct StreamPumpTests {
  @Test("all bytes arrive, both ways, also when nobody reads for a while") @EventLoopActor
  func bytes() async throws {
    let pumped = try Pumped()
    let bytes = (0..<2_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    pumped.other.reads = false
    let written = Promise<Void>()
    startTask {
      try? await pumped.one.write(bytes)
      written.fulfil()
    }
    try await pumped.other.write("back")
    try await pumped.one.wait(for: "back")
    pumped.other.reads = true
    try await pumped.other.wait("all") { $0.received.count >= bytes.count }
    #expect(pumped.other.received == bytes)
    await written.value
  }

  @Test("the end of one direction is passed on, and the other goes on") @EventLoopActor
  func halfClose() async throws {
    let pumped = try Pumped()
    try await pumped.one.write("question")
    pumped.one.endWriting()
    try await pumped.other.waitForEnd()
    #expect(pumped.other.text == "question" && pumped.pump.ended.result == nil)
    try await pumped.other.write("answer")
    pumped.other.close()
    try await pumped.one.waitForEnd()
    #expect(pumped.one.text == "answer")
    await pumped.pump.ended.value
  }

  @Test("what was sent before a close arrives, and then nothing is kept") @EventLoopActor
  func close() async throws {
    let pumped = try Pumped()
    pumped.one.reads = false
    try await pumped.other.write(Array(repeating: 7, count: 50_000))
    pumped.other.close()
    pumped.one.reads = true
    try await pumped.one.waitForEnd()
    #expect(pumped.one.received.count == 50_000)
    pumped.one.close()
    await pumped.pump.ended.value
  }

  @Test("descriptors go along") @EventLoopActor
  func descriptors() async throws {
    let pumped = try Pumped()
    let file = try OwnedDescriptor.inMemory("test")
    #expect(write(file.raw, "contents", 8) == 8)
    try await pumped.one.write("take", descriptors: [file.raw])
    try await pumped.other.wait(for: "take")
    let received = pumped.other.takeDescriptors()
    try #require(received.count == 1)
    var buffer = [UInt8](repeating: 0, count: 8)
    #expect(pread(received[0], &buffer, 8, 0) == 8 && String(decoding: buffer, as: UTF8.self) == "contents")
    Glibc.close(received[0])
  }
}
