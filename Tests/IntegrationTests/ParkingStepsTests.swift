import Glibc
import Logging
import Simulator
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@testable import Bridge
@testable import Machine
@testable import Relay

/// Events at each step of parking and waking, on a simulated QEMU in this process.
@Suite("events at every step of parking and waking", .onEventLoop, .serialized)
struct ParkingStepsTests {
  private static let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
  /// More commands than QEMU gets for one session to be parked and to wake, a monitor for the next one included.
  private static let commands = 18

  /// What can come between.
  private enum Action: CaseIterable { case event, command, hangUp, halfClose }

  /// A machine whose events are numbered, and what parks its sessions.
  @EventLoopActor
  private final class Stage {
    let qemu: SimulatedQEMU
    let machine: Machine
    let parking: Parking
    private(set) var emitted = 0
    /// Whether the events' texts tell their numbers.
    let isNumbered: Bool

    init(in folder: FilePath, isNumbered: Bool, mostActive: Int = 100) async throws {
      self.isNumbered = isNumbered
      qemu = SimulatedQEMU(SimulatedQEMU.Configuration(), clock: SimulatedClock(standingAt: .init(seconds: 1000)))
      let path = folder.appending("qmp")
      try qemu.addMonitor(listeningAt: path)
      let name = try #require(MachineName("test"))
      machine = try await Machine.attach(name: name, to: path, logger: ParkingStepsTests.silent)
      let monitors = machine.monitors
      parking = Parking(
        machine: machine, options: Parking.Options(after: .milliseconds(10), mostActive: mostActive), logger: ParkingStepsTests.silent
      ) { try? await monitors.remove($0) }
    }

    func emit() {
      qemu.emit("E", data: isNumbered ? ["n": .integer(Int64(emitted))] : nil)
      emitted += 1
    }

    /// A negotiated session, and its client.
    func session() async throws -> (Bridge.Session, Peer) {
      let added = try await machine.monitors.add()
      let id = added.id
      let (ours, theirs) = try socketPair()
      let client = try Peer(OwnedDescriptor(owning: ours))
      let relay = try Relay(client: (theirs, fcntl(theirs, F_DUPFD_CLOEXEC, 3)), monitor: added.takeSocket())
      await parking.turns.begin()
      let session = Session(
        id: id, access: .full, peer: PeerCredentials(user: 0, group: 0, process: nil), isUpgraded: true, place: nil, relay: relay)
      try await client.write(#"{"execute":"qmp_capabilities"}"#)
      try await client.wait(for: #"{"return": {}}"#)
      parking.began(session)
      return (session, client)
    }

    func parked(_ session: Bridge.Session) async throws {
      let parked = Promise<Void>()
      session.relay.onStateChange = { [relay = session.relay] in if relay.state != .active { parked.fulfil() } }
      if session.relay.state == .active { try await parked.soon("being parked") }
      session.relay.onStateChange = nil
    }

    /// Ends a session as ``Sessions`` does.
    func end(_ session: Bridge.Session, _ client: Peer) async throws {
      client.close()
      try await finish(session)
    }

    /// Waits for a session's end, and clears up as ``Sessions`` does.
    private func finish(_ session: Bridge.Session) async throws {
      if try await session.relay.drained.soon("the end") == .drained, let monitor = session.monitor {
        try? await machine.monitors.remove(monitor)
      }
      parking.ended(session)
      await session.relay.deliver()
      await session.relay.linger()
    }

    /// Parks a session and wakes it, with an event at each of the given steps; then has one more, to see the last by.
    ///
    /// - Returns: the numbers of the events that its client had, as far as texts tell; and how many it should have had. Nil if the
    ///   session was ended because it cannot be told.
    func cycle(_ steps: [(moment: SimulatedQEMU.Moment, command: Int)]) async throws -> (had: [Int], count: Int, due: Int)? {
      let (session, client) = try await session()
      let first = emitted
      let lastStep = qemu.commandCount + (steps.map(\.command).max() ?? 0)
      for step in steps { qemu.at(step.moment, ofCommand: qemu.commandCount + step.command) { self.emit() } }
      try await parked(session)
      if session.relay.drained.result != nil {
        try await end(session, client)
        return nil
      }
      try await client.write(#"{"execute":"query-name","id":"wake"}"#)
      let ended = Promise<Bool>()
      session.relay.drained.whenFulfilled { _ in ended.fulfil(true) }
      try await client.wait("a reply") { $0.text.contains(#""id": "wake"}"#) || $0.hasEnded }
      if client.hasEnded {
        try await end(session, client)
        return nil
      }
      // A step that was not reached is not left for the next session.
      while qemu.commandCount <= lastStep { _ = await machine.fenceFeed() }
      let last = emitted
      emit()
      // A step that is reached meanwhile emits one more.
      try await client.wait("the last event") { [self] peer in
        isNumbered ? Self.numbers(peer).contains(last) : Self.count(peer) >= emitted - first
      }
      // No further one comes.
      if !isNumbered { try await quiet() }
      let due = emitted - first
      let lines = client.text.split(whereSeparator: \.isNewline)
      let count = Self.count(client)
      let had = Self.numbers(client)
      #expect(lines.count { $0.contains(#""QMP""#) } == 1 && lines.count == count + 3, "\(client.text)")
      try await end(session, client)
      return (had.map { $0 - first }, count, due)
    }

    /// Parks a session and wakes it, with something done each time that QEMU has executed a certain command. In the end nothing of
    /// the session is left in QEMU, and its client has had every event once, and every reply once, all in order.
    func walk(_ actions: [(action: Action, command: Int)], _ comment: Comment) async throws {
      let (session, client) = try await session()
      let first = emitted
      let lastStep = qemu.commandCount + (actions.map(\.command).max() ?? 0)
      var asked: [String] = []
      for (number, step) in actions.enumerated() {
        qemu.at(.afterExecution, ofCommand: qemu.commandCount + step.command) { [self] in
          switch step.action {
          case .event: emit()
          case .command: if client.writeNow(#"{"execute":"query-name","id":"\#(number)"}"#) { asked.append("\(number)") }
          case .hangUp: client.close()
          case .halfClose: client.endWriting()
          }
        }
      }
      try await parked(session)
      if client.writeNow(#"{"execute":"query-name","id":"wake"}"#) { asked.append("wake") }
      while qemu.commandCount <= lastStep { _ = await machine.fenceFeed() }
      let hangsUp = actions.contains { $0.action == .hangUp }
      if hangsUp || actions.contains(where: { $0.action == .halfClose }) {
        _ = try await session.relay.drained.soon("the end")
      } else {
        let last = emitted
        emit()
        try await client.wait("all replies and the last event") {
          $0.hasEnded || (Self.replies($0).count == asked.count && Self.numbers($0).contains(last))
        }
        #expect(!client.hasEnded, comment)
      }
      let relay = session.relay
      let isWhole = !hangsUp
      if relay.drained.result != nil { try await finish(session) } else { try await end(session, client) }
      if isWhole {
        let had = Self.numbers(client).map { $0 - first }
        #expect(had == Array(0..<had.count), comment)
        #expect(Self.replies(client) == asked, comment)
      }
    }

    /// The ids of the replies that have one.
    private static func replies(_ client: Peer) -> [String] {
      client.text.split(whereSeparator: \.isNewline).compactMap { line in
        line.split(separator: #""id": ""#).dropFirst().first.map { String($0.prefix { $0 != "\"" }) }
      }
    }

    private static func count(_ client: Peer) -> Int {
      client.text.split(whereSeparator: \.isNewline).count { $0.contains(#""event": "E""#) }
    }

    private static func numbers(_ client: Peer) -> [Int] {
      client.text.split(separator: #""data": {"n": "#).dropFirst().compactMap { Int($0.prefix { $0 != "}" }) }
    }
  }

  @Test("one event, and two, at every step: each once and in order") @EventLoopActor
  func everyStep() async throws {
    try await withTemporaryDirectory { folder in
      let stage = try await Stage(in: folder, isNumbered: true)
      var cases = 0
      for moment in SimulatedQEMU.Moment.allCases {
        for command in 1...Self.commands {
          for steps in [[(moment, command)], [(moment, command), (moment, command)]] {
            let result = try #require(try await stage.cycle(steps), "ended at \(moment) of command \(command)")
            #expect(result.had == Array(0..<result.had.count) && result.had.count <= result.due, "\(moment) \(command): \(result)")
            cases += 1
          }
        }
      }
      print("\(cases) cases, \(stage.emitted) events")
    }
  }

  @Test("events at every two steps: each once and in order") @EventLoopActor
  func everyTwoSteps() async throws {
    try await withTemporaryDirectory { folder in
      let stage = try await Stage(in: folder, isNumbered: true)
      for first in 1..<Self.commands {
        for second in (first + 1)...Self.commands {
          let steps = [(SimulatedQEMU.Moment.afterExecution, first), (.arrival, second), (.afterReply, second)]
          let result = try #require(try await stage.cycle(steps), "ended at \(first) and \(second)")
          #expect(result.had == Array(0..<result.had.count) && result.had.count <= result.due, "\(first) \(second): \(result)")
        }
      }
      #expect(stage.emitted > 300)
    }
  }

  @Test("an event, a command, and the client's end, by twos at every two steps") @EventLoopActor
  func everyTwoActions() async throws {
    try await withTemporaryDirectory { folder in
      let stage = try await Stage(in: folder, isNumbered: true)
      var cases = 0
      for first in Action.allCases {
        for second in Action.allCases where first == .event || first == .command {
          for early in 1...Self.commands {
            for late in stride(from: early, through: Self.commands, by: Campaign.parkingStride) {
              try await stage.walk([(first, early), (second, late)], "\(first) at \(early), \(second) at \(late)")
              cases += 1
            }
          }
          // Nothing is left of any of them, nor of what was ready for the next to wake.
          for _ in 0..<1000 where try await stage.machine.monitors.list().count > 1 {}
          #expect(try await stage.machine.monitors.list().count == 1, "\(first) and \(second)")
        }
      }
      print("\(cases) cases")
    }
  }

  @Test("events that cannot be told apart: as many as there were, or the session ends") @EventLoopActor
  func identicalEvents() async throws {
    try await withTemporaryDirectory { folder in
      let stage = try await Stage(in: folder, isNumbered: false)
      var ended = 0
      for moment in SimulatedQEMU.Moment.allCases {
        for command in 1...Self.commands {
          if let result = try await stage.cycle([(moment, command), (moment, command + 1)]) {
            #expect(result.count == result.due, "\(moment) \(command): \(result)")
          } else {
            ended += 1
          }
        }
      }
      print("\(ended) sessions ended because two events were the same")
      #expect(ended < 36)
    }
  }
}
