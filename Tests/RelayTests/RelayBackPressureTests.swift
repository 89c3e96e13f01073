import Glibc
import SystemdEvent
import TestSupport
import Testing

@testable import Relay

@Suite(.onEventLoop) struct RelayBackPressureTests {
  /// More than the sockets' buffers hold, and one line.
  static let flood = sample(1_200_000).map { $0 == 10 ? 11 : $0 } + Array("\r\n".utf8)

  /// A write that can be looked at while it waits.
  @EventLoopActor
  final class Flooding {
    private(set) var isOver = false
    init(_ peer: Peer) {
      startTask {
        try? await peer.write(RelayBackPressureTests.flood)
        self.isOver = true
      }
    }
  }

  @Test("a client that does not read holds up neither its monitor nor its own commands") @EventLoopActor
  func slowClient() async throws {
    let session = try Session()
    try session.connected.reads = false
    let flooding = Flooding(session.monitor)
    try await quiet()
    #expect(flooding.isOver)
    try await session.connected.write("a command")
    try await session.monitor.wait(for: "a command")
    try session.connected.reads = true
    try await session.connected.wait("everything") { $0.received.count >= Self.flood.count }
    #expect(try session.connected.received == Self.flood)
    try await session.monitor.write("and on\r\n")
    try await session.connected.wait("the rest") { $0.received.ends(with: "and on\r\n") }
  }

  @Test("a client that leaves too much unread is cut off, and its monitor is drained") @EventLoopActor
  func tooMuchUnread() async throws {
    var options = Relay.Options()
    options.unreadLimit = 300_000
    let session = try Session(options)
    try session.connected.reads = false
    try await session.monitor.write(Self.flood)
    try await session.monitor.answerDrain()
    #expect(try await session.end() == .drained)
    #expect(session.relay.reasonForEnd?.contains("300000 bytes") == true)
    try session.connected.reads = true
    try await session.connected.waitForEnd()
    #expect(try Self.flood.starts(with: session.connected.received))
  }

  @Test("a client may leave as much unread as is allowed") @EventLoopActor
  func allowedUnread() async throws {
    var options = Relay.Options()
    options.unreadLimit = Self.flood.count
    let session = try Session(options)
    try session.connected.reads = false
    try await session.monitor.write(Self.flood)
    try await quiet()
    #expect(session.relay.reasonForEnd == nil)
    try session.connected.reads = true
    try await session.connected.wait("everything") { $0.received.count >= Self.flood.count }
  }

  @Test("a monitor that does not read holds up its client, but neither its replies nor other sessions") @EventLoopActor
  func slowMonitor() async throws {
    let session = try Session()
    session.monitor.reads = false
    let flooding = Flooding(try session.connected)
    try await quiet()
    #expect(!flooding.isOver)
    try await session.monitor.write("an event")
    try await session.connected.wait(for: "an event")
    let other = try Session()
    try await other.connected.write("meanwhile")
    try await other.monitor.wait(for: "meanwhile")
    #expect(!flooding.isOver)
    session.monitor.reads = true
    try await session.monitor.wait("everything") { $0.received.count >= Self.flood.count }
    #expect(session.monitor.received == Self.flood)
  }

  @Test("what a slow client is owed comes, although the monitor has gone") @EventLoopActor
  func monitorGoes() async throws {
    let session = try Session()
    try session.connected.reads = false
    try await session.monitor.write(Self.flood)
    session.monitor.close()
    #expect(try await session.relay.drained.soon() == .monitorGone)
    try session.connected.reads = true
    async let end = session.end()
    try await session.connected.waitForEnd()
    #expect(try session.connected.received == Self.flood)
    try session.connected.close()
    #expect(try await end == .monitorGone)
  }

  @Test("a slow client that half-closed holds up nobody's drain, and gets everything, then the end") @EventLoopActor
  func slowHalfClosed() async throws {
    let session = try Session()
    try session.connected.reads = false
    try session.connected.endWriting()
    let nonce = try await session.monitor.drainNonce()
    try await session.monitor.write(Self.flood + Array((Lines.lexerError + Lines.answer(nonce)).utf8))
    #expect(try await session.relay.drained.soon() == .drained)
    try session.connected.reads = true
    try await session.end()
    try await session.connected.waitForEnd()
    #expect(try session.connected.received == Self.flood)
  }

  @Test("a client that goes while both directions are full leaves a monitor that is drained", arguments: [true, false])
  @EventLoopActor
  func goesWhileFull(halfWay: Bool) async throws {
    let (raw, theirs) = try socketPair()
    let session = try Session(client: nil, input: theirs, output: fcntl(theirs, F_DUPFD_CLOEXEC, 3))
    session.monitor.reads = false
    let flooding = Flooding(session.monitor)
    // Commands, until nothing takes them any more.
    var sent: [UInt8] = []
    while case .bytes(let count) = Self.flood[sent.count...].withUnsafeBytes({ send(raw, isSocket: true, $0) }) {
      sent += Self.flood[sent.count..<sent.count + count]
      try await quiet()
    }
    if halfWay { shutdown(raw, CInt(SHUT_WR)) }
    try await quiet()
    close(raw)
    try await quiet()
    session.monitor.reads = true
    let nonce = try await session.monitor.drainNonce()
    #expect(flooding.isOver && !sent.isEmpty)
    // What was written last is not read any more; but what is, is in order.
    #expect(sent.starts(with: session.monitor.beforeDrain) && session.monitor.beforeDrain.count > 4096)
    try await session.monitor.write(Lines.lexerError + Lines.answer(nonce))
    #expect(try await session.end() == .drained)
  }
}

extension [UInt8] {
  func ends(with text: String) -> Bool { suffix(text.utf8.count).elementsEqual(text.utf8) }
}
