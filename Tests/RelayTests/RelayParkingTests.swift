import Glibc
import SystemdEvent
import TestSupport
import Testing

@testable import Relay

/// The relay's part in parking, step by step.
@Suite(.onEventLoop) struct RelayParkingTests {
  static let greeting = #"{"QMP": {}}"# + "\r\n"
  static let done = #"{"return": {}}"# + "\r\n"
  static let negotiation = #"{"execute":"qmp_capabilities"}"#
  static func event(_ number: Int) -> String { #"{"timestamp": {"seconds": 1, "microseconds": \#(number)}, "event": "E"}"# }

  /// A session that has negotiated.
  @EventLoopActor
  static func negotiated() async throws -> Session {
    let session = try Session()
    try await session.monitor.write(greeting)
    try await session.connected.write(negotiation)
    try await session.monitor.wait(for: negotiation)
    try await session.monitor.write(done)
    try await session.connected.wait(for: done)
    return session
  }

  /// Parks a session, with `drainedBy` playing QEMU.
  @EventLoopActor
  static func park(_ session: Session, missing: [Int] = [], _ drainedBy: (Peer) async throws -> Void) async throws {
    try await park(session.relay, session.monitor, missing: missing, drainedBy)
  }

  @EventLoopActor
  static func park(
    _ relay: Relay, _ monitor: Peer, missing: [Int] = [], _ drainedBy: (Peer) async throws -> Void
  ) async throws {
    relay.watchEvents()
    let beginning = Promise<Bool>()
    startTask { beginning.fulfil(await relay.beginParking {}) }
    try await drainedBy(monitor)
    #expect(try await beginning.soon("the drain"))
    monitor.close()
    let closed = Promise<Void>()
    startTask {
      await relay.monitorClosed()
      closed.fulfil()
    }
    try await closed.soon("the monitor's end")
    relay.park(delivering: missing.map { Array(event($0).utf8) })
  }

  /// Gives a session another monitor.
  @EventLoopActor
  static func wake(_ session: Session, ahead: [Int] = [], behind: Int = 0) throws -> Peer {
    let (ours, theirs) = try socketPair()
    let monitor = try Peer(OwnedDescriptor(owning: theirs))
    try session.relay.wake(with: OwnedDescriptor(owning: ours), delivering: ahead.map { Array(event($0).utf8) }, skipping: behind)
    return monitor
  }

  @Test("what came before, between and behind the drain's answer is the client's, cut anywhere") @EventLoopActor
  func events() async throws {
    for cut in 0...90 {
      let session = try await Self.negotiated()
      try await Self.park(session, missing: [4]) { monitor in
        let nonce = try await monitor.drainNonce()
        let lines = [Self.event(0) + "\r\n", Lines.lexerError, Self.event(1) + "\r\n", Lines.answer(nonce)]
        // The last never becomes whole.
        let later = [Self.event(2), Self.event(3), #"{"timestamp": {"sec"#].joined(separator: "\r\n")
        let bytes = Array((lines.joined() + later).utf8)
        // At every fifth place in two; the first time not at all, and the last byte by byte.
        if cut == 90 {
          for byte in bytes { try await monitor.write([byte]) }
        } else {
          try await monitor.write(bytes.prefix(cut * 5))
          try await quiet()
          try await monitor.write(bytes.dropFirst(cut * 5))
        }
      }
      session.relay.deliver(event: Array(Self.event(5).utf8))
      try await session.connected.wait(for: Self.event(5) + "\r\n")
      #expect(try session.connected.text == Self.greeting + Self.done + (0...5).map { Self.event($0) + "\r\n" }.joined())
      #expect(session.relay.state == .parked && !session.relay.hasMonitor && session.relay.commandsInFlight == 0)
    }
  }

  @Test("a parked session wakes for a command, not for white space or half of one; it lacks no event and has none twice")
  @EventLoopActor
  func wakes() async throws {
    let session = try await Self.negotiated()
    try await Self.park(session) { try await $0.answerDrain() }
    var wakings = 0
    session.relay.onWake = { wakings += 1 }
    try await session.connected.write(" \n" + #"{"execute":"query"#)
    try await quiet()
    #expect(wakings == 0)
    try await session.connected.write(#"-name"}"#)
    try await quiet()
    // The client is not read while it waits.
    try await session.connected.write(#"{"execute":"query-status"}"#)
    try await quiet()
    #expect(wakings == 1 && session.relay.commandsInFlight == 1)
    let monitor = try Self.wake(session, ahead: [1, 2], behind: 0)
    try await monitor.wait(for: #"{"execute":"query-name"}{"execute":"query-status"}"#)
    try await monitor.write(Self.event(3) + "\r\n" + Self.done + Self.done)
    try await session.connected.wait("both replies") { $0.text.hasSuffix(Self.done + Self.done) }
    #expect(
      try session.connected.text == Self.greeting + Self.done + (1...3).map { Self.event($0) + "\r\n" }.joined() + Self.done + Self.done)
    // Once more, with a monitor that is behind what the client has had.
    session.client?.forget()
    try await Self.park(session.relay, monitor) { try await $0.answerDrain() }
    try await session.connected.write(#"{"execute":"x"}"#)
    let third = try Self.wake(session, behind: 2)
    try await third.wait(for: "x")
    try await third.write(Self.event(4) + "\r\n" + Self.done + Self.event(5) + "\r\n" + Self.event(6) + "\r\n")
    try await session.connected.wait(for: Self.event(6) + "\r\n")
    #expect(try session.connected.text == Self.done + Self.event(6) + "\r\n")
  }

  @Test("what lives in the monitor, or is on its way, keeps it") @EventLoopActor
  func keepsIt() async throws {
    let session = try await Self.negotiated()
    #expect(session.relay.canPark())
    try await session.connected.write(#"{"execute":"a"}"#)
    try await session.monitor.wait(for: #""a""#)
    #expect(!session.relay.canPark() && session.relay.canPark(byForce: true))
    try await session.monitor.write(#"{"return": {}}"# + "\r")
    try await quiet()
    #expect(!session.relay.canPark(byForce: true), "in the middle of a reply")
    try await session.monitor.write("\n")
    try await session.connected.wait(for: Self.done + Self.done)
    #expect(session.relay.canPark())
    let file = try pipePair()
    try await session.connected.write(#"{"execute":"b"}"#, descriptors: [file.reading])
    try await session.monitor.wait(for: #""b""#)
    #expect(!session.relay.canPark(byForce: true), "descriptors")
    close(file.reading)
    close(file.writing)

    for negotiation in [#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#, #"{"execute":"qmp_\u0063apabilities"}"#] {
      let session = try Session()
      #expect(!session.relay.canPark(), "before its greeting")
      try await session.monitor.write(Self.greeting)
      try await session.connected.wait(for: Self.greeting)
      #expect(session.relay.canPark())
      try await session.connected.write(negotiation)
      try await session.monitor.wait(for: "apabilities")
      try await session.monitor.write(Self.done)
      try await session.connected.wait(for: Self.done)
      #expect(!session.relay.canPark(byForce: true), "\(negotiation)")
    }
    let malformed = try await Self.negotiated()
    try await malformed.connected.write("nonsense")
    try await malformed.monitor.wait(for: "nonsense")
    #expect(!malformed.relay.canPark(byForce: true))
  }

  @Test("a parked session's client that goes leaves nothing to be removed", arguments: [true, false]) @EventLoopActor
  func clientGoes(byClosing: Bool) async throws {
    let session = try await Self.negotiated()
    try await Self.park(session) { try await $0.answerDrain() }
    if byClosing { session.client = nil } else { try session.connected.endWriting() }
    #expect(try await session.end() == .parked)
    if !byClosing { try await session.connected.waitForEnd() }
  }

  @Test("a client that half-closes while it is being parked, or waits to wake, gets what it is owed") @EventLoopActor
  func goesMeanwhile() async throws {
    let parking = try await Self.negotiated()
    try await Self.park(parking) { monitor in
      let nonce = try await monitor.drainNonce()
      try parking.connected.endWriting()
      try await monitor.write(Lines.lexerError + Lines.answer(nonce))
    }
    #expect(try await parking.end() == .parked)

    let waking = try await Self.negotiated()
    try await Self.park(waking) { try await $0.answerDrain() }
    try await waking.connected.write(#"{"execute":"last"}"#)
    try waking.connected.endWriting()
    try await quiet()
    #expect(waking.relay.drained.result == nil)
    let monitor = try Self.wake(waking)
    try await monitor.wait(for: "last")
    try await monitor.write(Self.done)
    try await monitor.answerDrain()
    #expect(try await waking.end() == .drained)
    try await waking.connected.waitForEnd()
    #expect(try waking.connected.text == Self.greeting + Self.done + Self.done)
  }

  @Test("a session that can have no monitor ends with its reason") @EventLoopActor
  func givesUp() async throws {
    let session = try await Self.negotiated()
    try await Self.park(session) { try await $0.answerDrain() }
    try await session.connected.write(#"{"execute":"lost"}"#)
    try await quiet()
    session.relay.giveUp(because: "a test")
    async let end = session.end()
    try await session.connected.waitForEnd()
    try session.connected.close()
    #expect(try await end == .parked)
    #expect(session.relay.reasonForEnd == "a test")
  }

  @Test("a monitor that goes in the drain has gone for good") @EventLoopActor
  func monitorGoes() async throws {
    let session = try await Self.negotiated()
    session.relay.watchEvents()
    let began = Promise<Bool>()
    startTask { [relay = session.relay] in began.fulfil(await relay.beginParking {}) }
    _ = try await session.monitor.drainNonce()
    session.monitor.close()
    #expect(try await began.soon() == false)
    session.client = nil
    #expect(try await session.end() == .monitorGone)
  }
}
