import Glibc
import SystemdEvent
import TestSupport
import Testing

@testable import Relay

/// Clients behind two pipes, such as those of a service on standard input and output.
@Suite(.onEventLoop, .ignoringBrokenPipes) struct RelayPipeTests {
  /// The client's ends are peers of their own.
  @EventLoopActor
  struct PipeClient {
    let session: Session
    let commands: Peer
    let replies: Peer

    init() throws {
      let up = try pipePair()
      let down = try pipePair()
      commands = try Peer(OwnedDescriptor(owning: up.writing))
      replies = try Peer(OwnedDescriptor(owning: down.reading))
      session = try Session(client: nil, input: up.reading, output: down.writing)
    }
  }

  @Test("bytes go both ways") @EventLoopActor
  func bothWays() async throws {
    let client = try PipeClient()
    let down = sample(300_000)
    try await client.commands.write("commands")
    try await client.session.monitor.wait(for: "commands")
    try await client.session.monitor.write(down)
    try await client.replies.wait("everything") { $0.received.count >= down.count }
    #expect(client.replies.received == down)
  }

  @Test("the end of the input begins the drain, and replies come until its end") @EventLoopActor
  func inputEnds() async throws {
    let client = try PipeClient()
    try await client.commands.write("commands")
    client.commands.close()
    let nonce = try await client.session.monitor.drainNonce()
    #expect(client.session.monitor.beforeDrain == Array("commands".utf8))
    try await client.session.monitor.write("reply\r\n" + Lines.lexerError + Lines.answer(nonce))
    #expect(try await client.session.end() == .drained)
    try await client.replies.waitForEnd()
    #expect(client.replies.text == "reply\r\n")
  }

  @Test("an output that nobody reads any more ends the session, although the input stays open") @EventLoopActor
  func outputBreaks() async throws {
    let client = try PipeClient()
    client.replies.close()
    try await client.session.monitor.write("reply\r\n")
    try await client.session.monitor.answerDrain()
    #expect(try await client.session.relay.drained.soon() == .drained)
    client.commands.close()
    try await client.session.end()
  }
}
