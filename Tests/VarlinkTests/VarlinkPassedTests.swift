import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing
import Varlink

/// Connections and sockets that were there before the server.
@Suite(.onEventLoop, .ignoringBrokenPipes) struct VarlinkPassedTests {
  private static let echo = #"{"method":"test.service.Echo","parameters":{"text":"x"}}"# + "\0"
  private static let echoed = #"{"parameters":{"text":"x"}}"#

  /// A client at two pipes.
  @EventLoopActor
  private struct PipeClient {
    let calls: Peer
    let replies: TestSupport.VarlinkPeer
    let ended = Promise<Void>()

    init(_ service: TestService) throws {
      let up = try pipePair()
      let down = try pipePair()
      // The loop must not wait in the client's write for the server, which is on it too.
      _ = fcntl(up.writing, F_SETFL, O_NONBLOCK)
      calls = try Peer(OwnedDescriptor(owning: up.writing))
      replies = TestSupport.VarlinkPeer(try Peer(OwnedDescriptor(owning: down.reading)))
      try service.server.serve(
        input: OwnedDescriptor(owning: up.reading), output: OwnedDescriptor(owning: down.writing), peer: (1, 2, 3)
      ) { [ended] in ended.fulfil() }
    }
  }

  @Test("a connected socket is served, and its end told once") @EventLoopActor
  func socket() async throws {
    let service = try TestService()
    let pair = try socketPair()
    let client = TestSupport.VarlinkPeer(try Peer(OwnedDescriptor(owning: pair.ours)))
    var ends = 0
    let ended = Promise<Void>()
    try service.server.serve(OwnedDescriptor(owning: pair.theirs)) {
      ends += 1
      ended.fulfil()
    }
    #expect(service.server.connectionCount == 1)
    for _ in 0..<3 { #expect(try await client.call("test.service.Echo", #"{"text":"x"}"#) == Self.echoed) }
    client.peer.close()
    try await ended.soon()
    try await quiet()
    #expect(ends == 1 && service.server.connectionCount == 0)
  }

  @Test("a socket that listens already is listened at, and its path outlives the server") @EventLoopActor
  func listening() async throws {
    let service = try TestService()
    let path = service.folder.path.appending("passed")
    let socket = try ListeningSocket(at: path)
    let copy = dup(socket.descriptorNumber)
    let second = dup(socket.descriptorNumber)
    // It is waited at, by the time the server listens.
    let early = TestSupport.VarlinkPeer(try Peer(.connected(to: path)))
    try await early.send("test.service.Echo", #"{"text":"x"}"#)
    try service.server.listen(on: OwnedDescriptor(owning: copy))
    #expect(try await early.receive() == Self.echoed)
    #expect(try await TestSupport.VarlinkPeer(try Peer(.connected(to: path))).call("test.service.Echo", #"{"text":"x"}"#) == Self.echoed)
    service.server.shutDown()
    #expect(access(path.string, F_OK) == 0)
    close(second)
    socket.close()
  }

  @Test("at two pipes all calls are answered, those too that were written right before the end") @EventLoopActor
  func pipes() async throws {
    let service = try TestService()
    let client = try PipeClient(service)
    try await client.calls.write(Self.echo)
    #expect(try await client.replies.receive() == Self.echoed)
    for _ in 0..<20 { try await client.calls.write(Self.echo) }
    client.calls.close()
    for _ in 0..<20 { #expect(try await client.replies.receive() == Self.echoed) }
    try await client.replies.peer.waitForEnd()
    try await client.ended.soon()
  }

  @Test("a writer that goes while its call is under way keeps nobody busy, and has its answer") @EventLoopActor
  func writerGoes() async throws {
    let service = try TestService()
    let client = try PipeClient(service)
    try await client.calls.write(#"{"method":"test.service.Wait"}"# + "\0" + Self.echo)
    try await service.wait("the call") { $0.waiting.count == 1 }
    #expect(service.waiting[0].peer == PeerCredentials(user: 2, group: 3, process: 1))
    client.calls.close()
    // The hang-up does not go away, and must not be told again and again.
    try await quiet()
    service.release.fulfil(7)
    #expect(try await client.replies.receive() == #"{"parameters":{"count":7}}"#)
    #expect(try await client.replies.receive() == Self.echoed)
    try await client.ended.soon()
  }

  @Test("a reader that goes ends the connection, a call under way too") @EventLoopActor
  func readerGoes() async throws {
    let service = try TestService()
    let client = try PipeClient(service)
    try await client.calls.write(#"{"method":"test.service.Wait"}"# + "\0")
    try await service.wait("the call") { $0.waiting.count == 1 }
    client.replies.peer.close()
    try await client.ended.soon()
    #expect(service.gone == 1 && service.server.connectionCount == 0)
    service.release.fulfil(0)
  }

  @Test("a reply that is larger than a pipe arrives whole") @EventLoopActor
  func largeReply() async throws {
    let service = try TestService()
    let client = try PipeClient(service)
    let text = String(repeating: "a", count: 1_000_000)
    startTask { try? await client.calls.write(#"{"method":"test.service.Echo","parameters":{"text":"\#(text)"}}"# + "\0") }
    let reply = try await client.replies.receive()
    // Not the texts themselves: a megabyte makes no message for people.
    let isWhole = reply == #"{"parameters":{"text":"\#(text)"}}"#
    #expect(isWhole, "\(reply.utf8.count) bytes: \(reply.prefix(100))")
  }

  @Test("an upgrade gives both pipes, and is an end of the connection") @EventLoopActor
  func upgrade() async throws {
    let service = try TestService()
    let client = try PipeClient(service)
    try await client.calls.write(VarlinkUpgradeTests.request + "raw")
    #expect(try isJSON(try await client.replies.receive(), VarlinkUpgradeTests.reply))
    try await service.wait("the upgrade") { $0.rawPeers.count == 1 }
    try await service.rawPeers[0].wait(for: "raw")
    try await client.ended.soon()
    // This service closes the output.
    try await client.replies.peer.waitForEnd()
  }
}
