import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("the daemon is killed, the machine lives", .onEventLoop)
struct DaemonKilledTests {
  @Test("kill -9 under load, ten times, each time attached to again: the VM lives, and what was left is removed") @EventLoopActor
  func killedUnderLoad() async throws {
    try await Self.killUnderLoad(rounds: Campaign.kills)
  }

  @EventLoopActor
  private static func killUnderLoad(rounds: Int) async throws {
    try await withTemporaryDirectory { folder in
      let qmp = folder.appending("qmp")
      let machine = [
        "run", "--machine", "under", "--accel", "tcg", "--memory", "64M", "--", "-machine", "none", "-qmp",
        "unix:\(qmp),server=on,wait=off",
      ]
      let (_, status) = try await withDaemon(machine) { under in
        let qemu = try under.qemu()
        _ = try await under.qmp(#"{"execute":"query-name"}"#)
        try await StormTests.quiet(under)
        let before = RunningDaemon.descriptorCount(of: qemu)
        let attached = ["attach", "--machine", "over", "--qmp", "unix:\(qmp)"]
        for round in 0..<rounds {
          let (_, killed) = try await withDaemon(attached, directory: folder.appending("over")) { daemon in
            var random = SplitMix(seed: UInt64(round))
            var sessions: [Peer] = []
            // A monitor with a client, and one without.
            let monitors = MonitorsClient(daemon: daemon)
            for id in ["used-\(round)", "unused-\(round)"] { #expect(try await monitors.listen(id) == "{}") }
            sessions.append(try await monitors.connect("used-\(round)"))
            for number in 0..<8 {
              let session = try await daemon.acquireQMP()
              try await session.write(#"{"execute":"qmp_capabilities"}"#)
              let commands = ["query-qmp-schema", "query-version", "stop", "cont", "query-block"]
              for _ in 0..<Int.random(in: 0..<8, using: &random) {
                try await session.write(#"{"execute":"\#(commands.pick(&random))"}"#)
              }
              if number.isMultiple(of: 3) { try await session.write(#"{"execute":"query-ver"#) }
              if number == 5 { session.close() }
              sessions.append(session)
            }
            try await sessions[Int.random(in: 1..<6, using: &random)].wait(for: "QMP")
            daemon.signal(SIGKILL)
            try await known(function: "killedUnderLoad") {
              for session in sessions where !session.hasEnded && session !== sessions[6] { try await session.waitForEnd() }
            }
          }
          #expect(killed == 128 + SIGKILL)
        }
        // The last one removes what the one before it left, and ends in order.
        let (_, ended) = try await withDaemon(attached, directory: folder.appending("over")) { daemon in
          // Wanted back at once, on the same path.
          let monitors = MonitorsClient(daemon: daemon)
          #expect(try await monitors.listen("used-\(rounds - 1)") == "{}")
          #expect(try await monitors.remove("used-\(rounds - 1)") == "{}")
          while try await daemon.qmp(#"{"execute":"query-chardev"}"#).contains("disconnected:fd:") {}
          #expect(try await !monitors.call("List").contains("used-"))
        }
        #expect(ended == 0)
        try await StormTests.quiet(under)
        #expect(RunningDaemon.descriptorCount(of: qemu) == before)
        #expect(try await under.call("io.systemd.MachineInstance.Describe").contains("\"status\":\""))
      }
      #expect(status == 0)
    }
  }
}

/// How long the campaigns are: short by default, and as long as the environment says for the full ones (`make storm`).
enum Campaign {
  /// QMP_VARLINK_STORM_SESSIONS: for each seed.
  static let sessions = number("QMP_VARLINK_STORM_SESSIONS") ?? 1000
  /// QMP_VARLINK_STORM_PARALLEL: how many at once.
  static let parallel = number("QMP_VARLINK_STORM_PARALLEL") ?? 8
  /// QMP_VARLINK_STORM_SEEDS: from 1 on.
  static let seeds = number("QMP_VARLINK_STORM_SEEDS") ?? 1
  /// QMP_VARLINK_CYCLES: monitors that are added and removed.
  static let cycles = number("QMP_VARLINK_CYCLES") ?? 300
  /// QMP_VARLINK_STORAGE_ROUNDS: drives added and removed.
  static let storageRounds = number("QMP_VARLINK_STORAGE_ROUNDS") ?? 40
  /// QMP_VARLINK_PARKING_STRIDE: 1 tries every two steps, 5 every fifth second one.
  static let parkingStride = number("QMP_VARLINK_PARKING_STRIDE") ?? 5
  /// QMP_VARLINK_PARKED: sessions that are parked at once.
  static let parked = number("QMP_VARLINK_PARKED") ?? 150
  /// QMP_VARLINK_PARKING_SECONDS: for how long sessions are parked and woken at random.
  static let parkingSeconds = number("QMP_VARLINK_PARKING_SECONDS") ?? 5
  /// QMP_VARLINK_KILLS
  static let kills = number("QMP_VARLINK_KILLS") ?? 10
  /// QMP_VARLINK_SANITIZER_THREADS: that a sanitizer has in the daemon.
  static let sanitizerThreads = number("QMP_VARLINK_SANITIZER_THREADS") ?? 0

  private static func number(_ name: String) -> Int? { getenv(name).flatMap { Int(String(cString: $0)) } }
}
