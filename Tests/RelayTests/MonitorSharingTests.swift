import Glibc
import SystemdEvent
import TestSupport
import Testing

@testable import Relay

/// Sessions on a shared monitor, with their sockets and without QEMU.
@Suite("sessions on a shared monitor, with their sockets", .onEventLoop)
struct MonitorSharingTests {
  /// The monitor's side: what it was sent, and not answered.
  @EventLoopActor
  private final class Monitor {
    private(set) var commands: [(text: String, inode: UInt64?)] = []
    private var replies: [([UInt8]?) -> Void] = []
    private(set) lazy var sharing = MonitorSharing(
      greeting: Array(#"{"QMP": {"version": {}, "capabilities": []}}"#.utf8), parser: QEMUParser(answering: Array("expecting key".utf8))
    ) { [weak self] text, descriptors, reply in
      self?.commands.append((String(decoding: text, as: UTF8.self), descriptors.first.flatMap { inode($0) }))
      self?.replies.append(reply)
    }

    func answer(_ reply: String?) {
      replies.removeFirst()(reply.map { Array($0.utf8) })
    }

    /// A session that has negotiated.
    func session() async throws -> Peer {
      let peer = try Peer(sharing.open().takeSocket())
      let before = commands.count
      try await peer.write(#"{"execute":"qmp_capabilities"}"#)
      while commands.count == before { try await quiet() }
      answer(#"{"error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}}"#)
      try await peer.wait(for: "return")
      peer.forget()
      return peer
    }

    func wait(for count: Int) async throws {
      while commands.count < count { try await quiet() }
    }
  }

  @Test("each add-fd gets the descriptor that came with it, however many bytes there are to read") @EventLoopActor
  func descriptors() async throws {
    let monitor = Monitor()
    let session = try await monitor.session()
    let pipes = [try pipePair(), try pipePair(), try pipePair()]
    defer { for pipe in pipes { close(pipe.reading); close(pipe.writing) } }
    // The end of one command and the beginning of the next lie in the socket together.
    for (number, pipe) in pipes.enumerated() {
      try await session.write("{", descriptors: [pipe.reading])
      try await session.write(#""execute":"add-fd","id":\#(number)}"#)
    }
    for number in 0..<3 {
      try await monitor.wait(for: 2 + number)
      #expect(monitor.commands[1 + number].text == #"{"execute":"add-fd","id":\#(number)}"#)
      #expect(monitor.commands[1 + number].inode == inode(pipes[number].reading))
      monitor.answer(#"{"return": {}, "id": \#(number)}"#)
    }
    try await session.wait(for: #""id": 2}"#)
  }

  @Test("a long command has the monitor to itself: another's waits for one of them, not for two") @EventLoopActor
  func fairness() async throws {
    let monitor = Monitor()
    let greedy = try await monitor.session()
    let other = try await monitor.session()
    let long = #"{"execute":"ok","id":""# + String(repeating: "x", count: MonitorSharing.longCommand) + "\"}"
    try await greedy.write(long + long)
    try await monitor.wait(for: 3)
    try await other.write(#"{"execute":"ok","id":"short"}"#)
    try await quiet()
    #expect(monitor.commands.count == 3)
    monitor.answer(#"{"return": {}}"#)
    try await monitor.wait(for: 4)
    #expect(monitor.commands[3].text == #"{"execute":"ok","id":"short"}"#)
  }

  @Test("a reply that is lost ends its own session, and no other") @EventLoopActor
  func lostReply() async throws {
    let monitor = Monitor()
    let unlucky = try await monitor.session()
    let other = try await monitor.session()
    try await unlucky.write(#"{"execute":"a"}"#)
    try await monitor.wait(for: 3)
    try await other.write(#"{"execute":"b"}"#)
    try await monitor.wait(for: 4)
    monitor.answer(nil)
    try await unlucky.waitForEnd()
    monitor.answer(#"{"return": 1}"#)
    try await other.wait(for: #"{"return": 1}"#)
  }
}
