import Glibc
import SystemdEvent
import TestSupport
import Testing

/// What becomes of parked sessions, and of those that are about to be, when something is wrong with monitors. On a real QEMU.
@Suite("idle sessions and monitors that fail", .onEventLoop, .serialized)
struct ParkingFaultTests {
  /// The ids of the monitors that are ready for the next to wake: no session's, and not the daemon's.
  @EventLoopActor
  private static func ready(_ daemon: RunningDaemon) async throws -> [Substring] {
    let used = try await daemon.call("io.qmpvarlink.Sessions.List").split(separator: #""monitor":""#).dropFirst().map {
      $0.prefix { $0 != "\"" }
    }
    let all = try await daemon.call("io.qmpvarlink.Monitors.List").split(separator: #"{"id":""#).dropFirst()
    return all.filter { $0.contains(#""dynamic":true"#) && !$0.contains(#""control":true"#) }.map { $0.prefix { $0 != "\"" } }
      .filter { !used.contains($0) }
  }

  /// Waits until one is ready, and gives its id.
  @EventLoopActor
  private static func nextReady(_ daemon: RunningDaemon) async throws -> Substring {
    while true { if let id = try await ready(daemon).first { return id } }
  }

  @EventLoopActor
  private static func answers(_ session: Peer, _ id: String) async throws {
    try await session.write(#"{"execute":"query-name","id":"\#(id)"}"#)
    try await session.wait(for: #""id": "\#(id)"}"#)
  }

  @Test("one that was ready and is deleted by a client: who would have had it is told, the next is served") @EventLoopActor
  func readyOneDeleted() async throws {
    _ = try await withDaemon(ParkingTests.machine("--park-after", "0.05")) { daemon in
      let vandal = try await ParkingTests.session(daemon, ParkingTests.outOfBand)
      let sessions = try await (0..<2).asyncMap { _ in try await ParkingTests.session(daemon) }
      try await ParkingTests.parked(2, daemon)
      let id = try await Self.nextReady(daemon)
      try await vandal.write(#"{"execute":"object-del","arguments":{"id":"\#(id)"},"id":"deleted"}"#)
      try await vandal.wait(for: #"{"return": {}, "id": "deleted"}"#)
      try await sessions[0].write(#"{"execute":"query-name"}"#)
      try await sessions[0].waitForEnd()
      try await Self.answers(sessions[1], "next")
      sessions[0].close()
      sessions[1].close()
      vandal.close()
      try await StormTests.quiet(daemon)
    }
  }

  @Test("one of a session that is deleted by another client: it is told, and the others are parked") @EventLoopActor
  func sessionsOneDeleted() async throws {
    _ = try await withDaemon(ParkingTests.machine("--park-after", "0.3")) { daemon in
      let vandal = try await ParkingTests.session(daemon, ParkingTests.outOfBand)
      // More than are parked at once.
      let victims = try await (0..<10).asyncMap { _ in try await ParkingTests.session(daemon) }
      let listed = try await daemon.call("io.qmpvarlink.Sessions.List")
      let ids = listed.split(separator: #""monitor":""#).dropFirst(2).map { $0.prefix { $0 != "\"" } }
      #expect(ids.count == 10)
      try await vandal.write(
        ids.map { #"{"execute":"object-del","arguments":{"id":"\#($0)"}}"# }.joined() + #"{"execute":"query-name","id":"deleted"}"#)
      try await vandal.wait(for: #""id": "deleted""#)
      let other = try await ParkingTests.session(daemon)
      for victim in victims { try await victim.waitForEnd() }
      try await ParkingTests.parked(1, daemon)
      try await Self.answers(other, "awake")
      for session in victims + [other, vandal] { session.close() }
      try await StormTests.quiet(daemon)
    }
  }

  @Test("QEMU is stopped for longer than it may take: who wakes meanwhile is served when it goes on") @EventLoopActor
  func stopped() async throws {
    _ = try await withDaemon(ParkingTests.machine("--park-after", "0.05", "--response-limit", "1")) { daemon in
      let sessions = try await (0..<3).asyncMap { _ in try await ParkingTests.session(daemon) }
      try await ParkingTests.parked(3, daemon)
      _ = try await Self.nextReady(daemon)
      let qemu = try daemon.qemu()
      kill(qemu, SIGSTOP)
      for (number, session) in sessions.enumerated() { try await session.write(#"{"execute":"query-name","id":\#(number)}"#) }
      let described = try await daemon.call("io.systemd.MachineInstance.Describe")
      #expect(described.contains("unresponsive"), "\(described)")
      kill(qemu, SIGCONT)
      for (number, session) in sessions.enumerated() {
        try await session.wait("a reply") { $0.text.contains(#""id": \#(number)}"#) || $0.hasEnded }
        #expect(!session.hasEnded)
        session.close()
      }
      try await StormTests.quiet(daemon)
    }
  }

  @Test("clients that go while they are parked leave no descriptor, nor what was ready for them") @EventLoopActor
  func gone() async throws {
    _ = try await withDaemon(ParkingTests.machine("--park-after", "0.01")) { daemon in
      _ = try await daemon.qmp(#"{"execute":"query-name"}"#)
      let before = try await daemon.settledDescriptorCounts()
      for _ in 0..<20 {
        let session = try await ParkingTests.session(daemon)
        try await ParkingTests.parked(1, daemon)
        _ = try await Self.nextReady(daemon)
        session.close()
      }
      try await StormTests.quiet(daemon)
      #expect(try await daemon.settledDescriptorCounts() == before)
    }
  }

  @Test("the daemon's own monitor is deleted while all are parked: they have the next event nevertheless") @EventLoopActor
  func controlDeleted() async throws {
    _ = try await withDaemon(ParkingTests.machine("--park-after", "0.05", "--response-limit", "1")) { daemon in
      let vandal = try await ParkingTests.session(daemon, ParkingTests.outOfBand)
      let session = try await ParkingTests.session(daemon)
      try await ParkingTests.parked(1, daemon)
      let id = try await ParkedThousandTests.control(daemon)
      try await vandal.write(#"{"execute":"object-del","arguments":{"id":"\#(id)"}}{"execute":"stop"}"#)
      // Nobody asks anything on the control monitor.
      try await session.wait(for: #""event": "STOP""#)
      try await Self.answers(session, "awake")
    }
  }

  @Test("QEMU has no room for another: who wakes in vain is told why, the others and the machine go on") @EventLoopActor
  func noRoom() async throws {
    _ = try await withDaemon(ParkingTests.machine("--park-after", "0.05")) { daemon in
      let witness = try await ParkingTests.session(daemon, ParkingTests.outOfBand)
      let sessions = try await (0..<3).asyncMap { _ in try await ParkingTests.session(daemon) }
      try await ParkingTests.parked(3, daemon)
      _ = try await Self.nextReady(daemon)
      let process = try daemon.qemu()
      let qemu = "--pid=\(process)"
      let usual = try await command("prlimit", [qemu, "--nofile", "--output=SOFT", "--noheadings"]).output.filter(\.isNumber)
      // It can have those that it has. (With fewer allowed than it polls, it would do nothing at all.)
      let first = try #require((0...).first { access("/proc/\(process)/fd/\($0)", F_OK) != 0 })
      try #require(try await command("prlimit", [qemu, "--nofile=\(first):"]).status == 0)
      // This one has what was ready.
      try await Self.answers(sessions[0], "ready")
      try await sessions[1].write(#"{"execute":"query-name"}"#)
      try await sessions[1].waitForEnd()
      while try await daemon.call("io.qmpvarlink.Sessions.List").split(separator: #""state":""#).count - 1 > 3 {}
      #expect(daemon.log.contains("no monitor could be added for it"), "\(daemon.log.suffix(700))")
      try await Self.answers(witness, "well")
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
      try #require(try await command("prlimit", [qemu, "--nofile=\(usual):"]).status == 0)
      try await Self.answers(sessions[2], "again")
      for session in sessions + [witness] { session.close() }
      try await StormTests.quiet(daemon)
    }
  }
}
