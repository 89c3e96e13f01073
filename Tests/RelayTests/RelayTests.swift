import Glibc
import SystemdEvent
import TestSupport
import Testing

@testable import Relay

@Suite(.onEventLoop) struct RelayTests {
  @Test("bytes go both ways unchanged, whatever they are") @EventLoopActor
  func bytesBothWays() async throws {
    let session = try Session()
    let up = sample(300_000)
    let down = [UInt8](0...255) + sample(400_000) + [UInt8](0...255)
    async let sending: Void = session.connected.write(up)
    try await session.monitor.write(down)
    try await sending
    try await session.monitor.wait("all bytes") { $0.received.count >= up.count }
    try await session.connected.wait("all bytes") { $0.received.count >= down.count }
    #expect(session.monitor.received == up)
    #expect(try session.connected.received == down)
  }

  @Test("descriptors arrive in order, none later than its byte", arguments: [true, false]) @EventLoopActor
  func descriptors(upwards: Bool) async throws {
    let session = try Session()
    let (sender, receiver) = upwards ? (try session.connected, session.monitor) : (session.monitor, try session.connected)
    let files = try (0..<3).map { _ in try pipePair() }
    var offsets: [Int] = []
    var sent = 0
    var inStep = true
    let watching = startTask {
      // Looks after each read: as many descriptors must be there as bytes that one was attached to.
      try? await receiver.wait("the end") { peer in
        let due = offsets.count { $0 < peer.received.count }
        if peer.descriptors.raw.count < due { inStep = false }
        return peer.text.hasSuffix("end")
      }
    }
    for (index, file) in files.enumerated() {
      try await sender.write("between")
      sent += 7
      offsets.append(sent)
      try await sender.write("with \(index)", descriptors: [file.reading])
      sent += 6
    }
    try await sender.write("end")
    await watching.value
    #expect(inStep)
    #expect(receiver.text == "betweenwith 0betweenwith 1betweenwith 2end")
    #expect(receiver.descriptors.raw.map(inode) == files.map { inode($0.reading) })
    for file in files {
      close(file.reading)
      close(file.writing)
    }
  }

  @Test("a client that half-closes gets every reply, then the end") @EventLoopActor
  func halfClose() async throws {
    let session = try Session()
    try await session.connected.write("{command}")
    try session.connected.endWriting()
    let nonce = try await session.monitor.drainNonce()
    #expect(session.monitor.beforeDrain == Array("{command}".utf8))
    try await session.monitor.write("reply 1\r\nreply 2\r\n" + Lines.lexerError + "reply 3\r\n" + Lines.lexerError)
    try await session.monitor.write(Lines.answer(nonce) + "too late\r\n")
    #expect(try await session.end() == .drained)
    try await session.connected.waitForEnd()
    #expect(try session.connected.text == "reply 1\r\nreply 2\r\n" + Lines.lexerError + "reply 3\r\n")
  }

  @Test("a drain that begins in the middle of a reply keeps the reply whole") @EventLoopActor
  func midReply() async throws {
    let session = try Session()
    try await session.monitor.write(#"{"return": "#)
    try await session.connected.wait(for: "return")
    try session.connected.endWriting()
    let nonce = try await session.monitor.drainNonce()
    for byte in (#"{"error": 1}}"# + "\r\n" + Lines.lexerError + Lines.answer(nonce)).utf8 {
      try await session.monitor.write([byte])
    }
    #expect(try await session.end() == .drained)
    try await session.connected.waitForEnd()
    #expect(try session.connected.text == #"{"return": {"error": 1}}"# + "\r\n")
  }

  @Test("the drain begins only after all that the client sent", arguments: [true, false]) @EventLoopActor
  func drainComesLast(byClosing: Bool) async throws {
    let session = try Session()
    let commands = sample(500_000)
    session.monitor.reads = false
    async let sending: Void = session.connected.write(commands)
    try await quiet()
    session.monitor.reads = true
    try await sending
    session.monitor.reads = false
    // Some of it is under way in the relay now.
    if byClosing { session.client = nil } else { try session.connected.endWriting() }
    try await quiet()
    session.monitor.reads = true
    try await session.monitor.answerDrain()
    #expect(try await session.end() == .drained)
    let executed = session.monitor.beforeDrain
    // Of what a client that is gone for good has written, not all is read any more; but what is, is in order.
    #expect(byClosing ? commands.starts(with: executed) && executed.count > 200_000 : executed == commands)
  }

  @Test("when the client has closed, the monitor is drained and replies are dropped") @EventLoopActor
  func clientCloses() async throws {
    let session = try Session()
    try await session.connected.write("{command}")
    session.client = nil
    let nonce = try await session.monitor.drainNonce()
    #expect(session.monitor.beforeDrain == Array("{command}".utf8))
    // Far more than the buffers hold: it is read although nobody wants it.
    try await session.monitor.write(sample(900_000).map { $0 == 10 ? 11 : $0 } + Array("\r\n".utf8))
    try await session.monitor.write(Lines.lexerError + Lines.answer(nonce))
    #expect(try await session.end() == .drained)
  }

  @Test("a client that closes behind its half-close does not stop the drain") @EventLoopActor
  func closesInTheDrain() async throws {
    let session = try Session()
    try session.connected.endWriting()
    let nonce = try await session.monitor.drainNonce()
    session.client = nil
    try await quiet()
    #expect(session.relay.drained.result == nil)
    try await session.monitor.write("reply\r\n" + Lines.lexerError + Lines.answer(nonce))
    #expect(try await session.end() == .drained)
  }

  @Test("a client that closes with replies unread is drained too") @EventLoopActor
  func closesWithRepliesUnread() async throws {
    let session = try Session()
    try session.connected.reads = false
    async let replies: Void = session.monitor.write([UInt8](repeating: 120, count: 900_000) + Array("\r\n".utf8))
    try await quiet()
    session.client = nil
    try await replies
    try await session.monitor.answerDrain()
    #expect(try await session.end() == .drained)
  }

  @Test("without a client the monitor is drained at once") @EventLoopActor
  func noClient() async throws {
    let (ours, theirs) = try socketPair()
    let monitor = try Peer(OwnedDescriptor(owning: theirs))
    let relay = try Relay(client: nil, monitor: OwnedDescriptor(owning: ours))
    try await monitor.write("greeting\r\n")
    try await monitor.answerDrain()
    #expect(monitor.beforeDrain == [])
    #expect(try await relay.drained.soon() == .drained)
    await relay.deliver()
    await relay.linger()
  }

  @Test("a monitor that goes has said what it said, and then the client gets the end") @EventLoopActor
  func monitorGoes() async throws {
    let session = try Session()
    try await session.monitor.write("last words")
    session.monitor.close()
    async let end = session.end()
    try await session.connected.waitForEnd()
    #expect(try session.connected.text == "last words")
    try session.connected.close()
    #expect(try await end == .monitorGone)
  }

  @Test("a monitor that goes before its drain is answered ends the session") @EventLoopActor
  func monitorGoesInTheDrain() async throws {
    let session = try Session()
    try session.connected.endWriting()
    _ = try await session.monitor.drainNonce()
    try await session.monitor.write("last words\r\n")
    session.monitor.close()
    #expect(try await session.end() == .monitorGone)
    try await session.connected.waitForEnd()
    #expect(try session.connected.text == "last words\r\n")
  }

  @Test("a monitor that goes while the client's commands wait for it ends the session") @EventLoopActor
  func monitorGoesWithCommandsWaiting() async throws {
    let session = try Session()
    session.monitor.reads = false
    startTask { [client = try session.connected] in try? await client.write(sample(1_200_000)) }
    try await quiet()
    session.monitor.close()
    async let end = session.end()
    try await session.connected.waitForEnd()
    try session.connected.close()
    #expect(try await end == .monitorGone)
  }

  @Test("names given to descriptors are taken back in the drain") @EventLoopActor
  func namedDescriptors() async throws {
    let session = try Session()
    let file = try pipePair()
    let getfd = #"{"execute":"getfd","arguments":{"fdname":"mine"}}"#
    try await session.connected.write(getfd, descriptors: [file.reading])
    try session.connected.endWriting()
    let nonce = try await session.monitor.drainNonce()
    #expect(session.monitor.beforeDrain == Array(getfd.utf8))
    #expect(session.monitor.descriptors.raw.map(inode) == [inode(file.reading)])
    let closefd = #"{"execute":"closefd","arguments":{"fdname":"mine"},"id":"\#(nonce)+"}"#
    #expect(session.monitor.received.count { $0 == 0xFF } == 1)
    #expect(Array(session.monitor.received.drop { $0 != 0xFF }.dropFirst().prefix(closefd.utf8.count)) == Array(closefd.utf8))
    let done = #"{"return": {}}"# + "\r\n"
    try await session.monitor.write(
      done + Lines.lexerError + #"{"id": "\#(nonce)+", "return": {}}"# + "\r\n" + Lines.answer(nonce))
    #expect(try await session.end() == .drained)
    try await session.connected.waitForEnd()
    #expect(try session.connected.text == done)
    close(file.reading)
    close(file.writing)
  }

  @Test("a command loses its white space on the way, and half a command goes nowhere") @EventLoopActor
  func compaction() async throws {
    let session = try Session()
    try await session.connected.write(#" { "execute" : "query-name" } {"execute": "query"#)
    try session.connected.endWriting()
    try await session.monitor.answerDrain()
    #expect(session.monitor.beforeDrain == Array(#"{"execute":"query-name"}"#.utf8))
    #expect(try await session.end() == .drained)
  }

  @Test("a stopped session executes what came, takes nothing more, and gives the client the end") @EventLoopActor
  func stop() async throws {
    let session = try Session()
    try await session.connected.write("before")
    try await session.monitor.wait(for: "before")
    session.relay.stop(because: "a test")
    try await session.connected.write("after")
    let nonce = try await session.monitor.drainNonce()
    try await quiet()
    try await session.monitor.write("reply\r\n" + Lines.lexerError + Lines.answer(nonce))
    async let end = session.end()
    try await session.connected.waitForEnd()
    #expect(try session.connected.text == "reply\r\n")
    #expect(session.monitor.beforeDrain == Array("before".utf8))
    #expect(!session.monitor.text.contains("after"))
    try session.connected.close()
    #expect(try await end == .drained)
  }
}
