import Glibc
import SystemdEvent
import TestSupport
import Testing

/// Many parked sessions at once, and many that are parked and woken at random, on a real QEMU.
@Suite("many idle sessions", .onEventLoop, .serialized)
struct ParkedThousandTests {
  private static let room = ["--max-sessions", "2000", "--max-sessions-per-user", "2000"]

  /// The median of so many measurements.
  @EventLoopActor
  private static func median(_ count: Int, _ body: () async throws -> Void) async throws -> Duration {
    var times: [Duration] = []
    for _ in 0..<count {
      let start = ContinuousClock.now
      try await body()
      times.append(ContinuousClock.now - start)
    }
    return times.sorted()[count / 2]
  }

  @EventLoopActor
  private static func describing(_ daemon: RunningDaemon) async throws -> Duration {
    let connection = try daemon.connect()
    return try await median(301) { _ = try await connection.call("io.systemd.MachineInstance.Describe") }
  }

  /// Waits until there are the control monitor, its spare, the witness's, and the one that is ready for the next to wake: all other
  /// sessions are parked.
  @EventLoopActor
  private static func settled(_ daemon: RunningDaemon, ready: Int = 1) async throws {
    let connection = try daemon.connect()
    while true {
      let list = try await connection.call("io.qmpvarlink.Monitors.List")
      let ofSessions = list.split(separator: #""state":""#).count - 1
      if ofSessions == 1, list.split(separator: #""id":"qv-"#).count - 1 == 3 + ready { return }
    }
  }

  @EventLoopActor
  private static func memory(_ daemon: RunningDaemon) -> Int { RunningDaemon.status(of: daemon.process, "RssAnon") }

  @Test("they do not slow Describe, all get an event once, and wake; figures") @EventLoopActor
  func thousand() async throws {
    let count = Campaign.parked
    _ = try await withDaemon(ParkingTests.machine(["--park-after", "0.05", "--max-active-monitors", "64"] + Self.room)) { daemon in
      let witness = try await ParkingTests.session(daemon, ParkingTests.outOfBand)
      try await Self.settled(daemon, ready: 0)
      let alone = try await Self.describing(daemon)
      let before = Self.memory(daemon)
      let sessions = try await (0..<count).asyncMap { _ in try await ParkingTests.session(daemon) }
      try await Self.settled(daemon)
      let perSession = Double(Self.memory(daemon) - before) / Double(count)
      let together = try await Self.describing(daemon)
      try await witness.write(#"{"execute":"stop","id":"stop"}"#)
      for session in sessions + [witness] { try await session.wait(for: #""event": "STOP""#) }
      let events = ParkingTests.events(witness)
      #expect(events.count == 1)
      #expect(sessions.allSatisfy { ParkingTests.events($0) == events })

      let command = #"{"execute":"query-name","id":7}"#
      @EventLoopActor func ask(_ session: Peer) async throws {
        session.forget()
        try await session.write(command)
        try await session.wait(for: #""id": 7}"#)
      }
      var sleeping = sessions.makeIterator()
      var last = sessions[0]
      var wakings: [Duration] = []
      for _ in 0..<25 {
        last = sleeping.next() ?? last
        // One that comes in a while: a monitor has been made for it.
        try await Self.settled(daemon)
        wakings.append(try await Self.median(1) { try await ask(last) })
      }
      let waking = wakings.sorted()[12]
      let active = try await Self.median(101) { try await ask(last) }
      let listed = try await daemon.call("io.qmpvarlink.Sessions.List")
      #expect(listed.split(separator: #""state":"parked""#).count >= count)
      for session in sessions { session.close() }
      try await Self.settled(daemon, ready: 0)
      let after = try await Self.describing(daemon)
      // Against the slower of the two, which differ only by what else the host does.
      let ratio = together / max(alone, after)
      #expect(ratio <= 1.5, "\(together) against \(alone) and \(after)")
      print(
        "figures: \(count) parked: Describe \(together), with none \(alone) before and \(after) after, ratio \(ratio); waking \(waking), active \(active), "
          + "ratio \(waking / active); \(perSession) KiB a session")
    }
  }

  @Test("without parking each keeps its monitor; figures for comparison") @EventLoopActor
  func withoutParking() async throws {
    _ = try await withDaemon(ParkingTests.machine(["--park-after", "never", "--max-active-monitors", "2000"] + Self.room)) { daemon in
      let witness = try await ParkingTests.session(daemon)
      let alone = try await Self.describing(daemon)
      let before = Self.memory(daemon)
      // More would take minutes: each monitor slows every command, and so the next one's making.
      let count = min(Campaign.parked, 400)
      let sessions = try await (0..<count).asyncMap { _ in try await ParkingTests.session(daemon) }
      let perSession = Double(Self.memory(daemon) - before) / Double(count)
      let together = try await Self.describing(daemon)
      let listed = try await daemon.call("io.qmpvarlink.Sessions.List")
      #expect(listed.split(separator: #""monitor":""#).count - 1 == count + 1)
      #expect(!listed.contains(#""state":"parked""#))
      print(
        "figures: \(count) with monitors: Describe \(together), with none \(alone), ratio \(together / alone); \(perSession) KiB a session")
      withExtendedLifetime((witness, sessions)) {}
    }
  }

  @Test("events, commands, parking, waking and hanging up at random: each session has every event once, in order") @EventLoopActor
  func storm() async throws {
    _ = try await withDaemon(ParkingTests.machine(["--park-after", "0.02"] + Self.room)) { daemon in
      let witness = try await ParkingTests.session(daemon, ParkingTests.outOfBand)
      let isOver = Promise<Void>()
      let end = try EventSource.timer(after: .seconds(Campaign.parkingSeconds)) { isOver.fulfil() }
      let clients = (0..<24).map { number in
        Task(executorPreference: EventLoop.shared) {
          try await Self.client(daemon, SplitMix(seed: UInt64(number)), until: isOver)
        }
      }
      var random = SplitMix(seed: 99)
      var count = 0
      while isOver.result == nil {
        count += 1
        try await witness.write(#"{"execute":"\#(count % 2 == 1 ? "stop" : "cont")","id":\#(count)}"#)
        try await witness.wait(for: #""id": \#(count)}"#)
        if Bool.random(using: &random) { _ = await Promise<Void>().value(within: .milliseconds(Int.random(in: 1...40, using: &random))) }
      }
      let all = ParkingTests.events(witness)
      #expect(all.count == count)
      let last = try #require(all.last)
      var commands = 0
      var sessions = 0
      for client in clients {
        for session in try await client.value {
          let own = ParkingTests.events(session.peer)
          if session.isOpen {
            // One without any began behind the last.
            if !own.isEmpty { try await session.peer.wait("the last event") { ParkingTests.events($0).last == last } }
            let own = ParkingTests.events(session.peer)
            #expect(own == Array(all.suffix(own.count)), "\(own.count) of \(all.count)")
          } else if let first = own.first, let start = all.firstIndex(of: first) {
            #expect(own == Array(all[start...].prefix(own.count)))
          }
          commands += session.commands
          sessions += 1
        }
      }
      print("figures: \(sessions) sessions, \(commands) commands, \(count) events in \(Campaign.parkingSeconds) s")
      #expect(!daemon.log.contains("it cannot be told"), "\(daemon.log.suffix(500))")
      withExtendedLifetime(end) {}
    }
  }

  private struct Storming {
    let peer: Peer
    var commands = 0
    var isOpen = true
  }

  /// Has one session after the other, until it is over.
  @EventLoopActor
  private static func client(_ daemon: RunningDaemon, _ random: SplitMix, until isOver: Promise<Void>) async throws -> [Storming] {
    var random = random
    var sessions: [Storming] = []
    while isOver.result == nil {
      var session = Storming(peer: try await ParkingTests.session(daemon))
      while isOver.result == nil {
        // Shorter and longer than what it takes to be parked.
        _ = await Promise<Void>().value(within: .milliseconds(Int.random(in: 0...80, using: &random)))
        if Int.random(in: 0..<30, using: &random) == 0 {
          session.isOpen = false
          session.peer.close()
          break
        }
        let burst = Int.random(in: 1...3, using: &random)
        let ids = (0..<burst).map { session.commands + $0 }
        try await session.peer.write(ids.map { #"{"execute":"query-name","id":\#($0)}"# }.joined())
        session.commands += burst
        try await session.peer.wait(for: #""id": \#(session.commands - 1)}"#)
      }
      if session.isOpen {
        let replies = session.peer.text.split(whereSeparator: \.isNewline).filter { $0.hasPrefix(#"{"return": {"name""#) }
        #expect(replies == (0..<session.commands).map { #"{"return": {"name": "test"}, "id": \#($0)}"#[...] })
      }
      sessions.append(session)
    }
    return sessions
  }

  @Test("few monitors for many busy sessions: all get their turn, replies in order") @EventLoopActor
  func fewMonitors() async throws {
    _ = try await withDaemon(ParkingTests.machine("--max-active-monitors", "2", "--park-after", "600")) { daemon in
      let clients = (0..<6).map { _ in
        Task(executorPreference: EventLoop.shared) {
          let session = try await ParkingTests.session(daemon)
          for number in 0..<30 {
            try await session.write(#"{"execute":"query-name","id":\#(number)}"#)
            try await session.wait(for: #""id": \#(number)}"#)
          }
          return session
        }
      }
      for client in clients {
        let replies = try await client.value.text.split(whereSeparator: \.isNewline).dropFirst(2)
        #expect(Array(replies) == (0..<30).map { #"{"return": {"name": "test"}, "id": \#($0)}"#[...] })
      }
      let monitors = try await daemon.call("io.qmpvarlink.Sessions.List").split(separator: #""monitor":""#).count - 1
      #expect(monitors <= 2)
    }
  }

  @Test("when a session removes the daemon's own monitor, parked ones lose no event") @EventLoopActor
  func takeOver() async throws {
    _ = try await withDaemon(ParkingTests.machine("--park-after", "0.05", "--response-limit", "1")) { daemon in
      let witness = try await ParkingTests.session(daemon, ParkingTests.outOfBand)
      let session = try await ParkingTests.session(daemon)
      try await ParkingTests.parked(1, daemon)
      for round in 1...2 {
        // Its spare is there before that.
        let control = try await Self.control(daemon)
        try await witness.write(
          #"{"execute":"stop"}{"execute":"object-del","arguments":{"id":"\#(control)"},"id":"del\#(round)"}{"execute":"cont"}"#)
        try await witness.wait(for: #""id": "del\#(round)""#)
        while try await !daemon.call("io.systemd.MachineInstance.Describe").contains("running\":true") {}
        try await session.wait("all events") { ParkingTests.events($0).count == 2 * round }
        #expect(ParkingTests.events(session) == ParkingTests.events(witness))
        try await session.write(#"{"execute":"query-name","id":\#(round)}"#)
        try await session.wait(for: #""id": \#(round)}"#)
        try await ParkingTests.parked(1, daemon)
      }
      #expect(daemon.log.contains("the spare one takes its place"))
    }
  }

  /// The id of the control monitor, once it has a spare.
  @EventLoopActor
  static func control(_ daemon: RunningDaemon) async throws -> String {
    for _ in 0..<1000 {
      let list = try await daemon.call("io.qmpvarlink.Monitors.List")
      let own = list.split(separator: #"{"id":""#).dropFirst().filter { $0.contains(#""control":true"#) }.map {
        String($0.prefix { $0 != "\"" })
      }
      // The older of the two.
      if own.count == 2 { return own.contains("qv-control") ? "qv-control" : own.min { ($0.count, $0) < ($1.count, $1) } ?? "" }
    }
    throw RunningDaemon.Failure("no spare monitor")
  }
}
