import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("the control monitor stays alive", .onEventLoop)
struct ControlMonitorTests {
  private static let machine = [
    "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--response-limit", "1", "--", "-machine", "none",
  ]

  @Test("a QEMU that does not answer is a state of its own, and is left again") @EventLoopActor
  func stoppedQEMU() async throws {
    _ = try await withDaemon(Self.machine) { daemon in
      let qemu = try daemon.qemu()
      kill(qemu, SIGSTOP)
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe") == #"{"parameters":{"running":false,"status":"unresponsive"}}"#)
      for method in ["io.systemd.MachineInstance.Pause", "io.systemd.MachineInstance.Terminate"] {
        let reply = try await known(within: .seconds(1)) { try await daemon.call(method) }
        #expect(reply.hasPrefix(#"{"error":"io.systemd.QemuMachineInstance.NotResponding""#))
      }
      let acquiring = try await daemon.connect().call("io.systemd.QemuMachineInstance.AcquireQMP", flags: #","upgrade":true"#)
      #expect(acquiring.hasPrefix(#"{"error":"io.systemd.QemuMachineInstance.NotResponding""#))
      kill(qemu, SIGCONT)
      while try await daemon.call("io.systemd.MachineInstance.Describe") != #"{"parameters":{"running":true,"status":"running"}}"# {}
      #expect(try await daemon.qmp(#"{"execute":"query-name"}"#).contains("test"))
    }
  }

  @Test("a hotplug that QEMU did not answer in time leaves nothing behind when it does") @EventLoopActor
  func hotplugTimesOut() async throws {
    _ = try await withDaemon(Self.machine) { daemon in
      let qemu = try daemon.qemu()
      _ = try await daemon.qmp(#"{"execute":"query-name"}"#)
      try await StormTests.quiet(daemon)
      let before = RunningDaemon.descriptorCount(of: qemu)
      kill(qemu, SIGSTOP)
      let acquiring = try await known(within: .seconds(1)) {
        try await daemon.connect().call("io.systemd.QemuMachineInstance.AcquireQMP", flags: #","upgrade":true"#)
      }
      #expect(acquiring.hasPrefix(#"{"error":"io.systemd.QemuMachineInstance.NotResponding""#))
      kill(qemu, SIGCONT)
      while try await !daemon.call("io.systemd.MachineInstance.Describe").contains("running\":true") {}
      try await StormTests.quiet(daemon)
      #expect(RunningDaemon.descriptorCount(of: qemu) == before)
    }
  }

  @Test("a session that deletes the control monitor does not take typed methods away", arguments: [false, true]) @EventLoopActor
  func deletedControlMonitor(withChardev: Bool) async throws {
    _ = try await withDaemon(Self.machine) { daemon in
      let subscriber = try daemon.connect()
      _ = try await subscriber.call("io.systemd.MachineInstance.SubscribeEvents", flags: #","more":true"#)
      // Twice: the spare is replaced too.
      for _ in 0..<2 {
        let session = try await daemon.acquireQMP()
        try await session.write(#"{"execute":"qmp_capabilities"}"#)
        try await session.wait(for: #"{"return": {}}"#)
        try await Self.awaitSpare(session)
        let control = try await Self.controlMonitor(session)
        var commands = #"{"execute":"object-del","arguments":{"id":"\#(control)"},"id":"del"}"#
        if withChardev { commands += #"{"execute":"chardev-remove","arguments":{"id":"\#(control)"},"id":"remove"}"# }
        try await session.write(commands)
        try await session.wait(for: withChardev ? #""id": "remove""# : #""id": "del""#)
        try await known(within: .seconds(1)) {
          while try await !daemon.call("io.systemd.MachineInstance.Describe").contains("running\":true") {}
        }
        #expect(try await daemon.call("io.systemd.MachineInstance.Pause") == "{}")
        #expect(try await subscriber.receive().contains(#""event":"STOP""#))
        #expect(try await daemon.call("io.systemd.MachineInstance.Resume") == "{}")
        #expect(try await subscriber.receive().contains(#""event":"RESUME""#))
        #expect(try await daemon.qmp(#"{"execute":"query-name"}"#).contains("test"))
      }
      #expect(daemon.log.contains("the spare one takes its place"))
    }
  }

  private static let list = #"{"execute":"qom-list","arguments":{"path":"/objects"},"id":"list"}"#

  /// Our monitors that the session sees, its own not among them: the control monitor, and the spare once that is there.
  @EventLoopActor
  private static func others(_ session: Peer) async throws -> [String] {
    let from = session.received.count
    try await session.write(list)
    try await session.wait("the list") { String(decoding: $0.received[from...], as: UTF8.self).contains(#""id": "list"}"#) }
    let own = session.text.split(separator: "\"").first { $0.hasPrefix("qv-") }.map(String.init)
    let listed = String(decoding: session.received[from...], as: UTF8.self)
    return listed.split(separator: "\"").filter { $0.hasPrefix("qv-") }.map(String.init).filter { $0 != own }
  }

  @EventLoopActor
  private static func awaitSpare(_ session: Peer) async throws {
    while try await others(session).count < 2 {}
  }

  /// The older of the two.
  @EventLoopActor
  private static func controlMonitor(_ session: Peer) async throws -> String {
    let others = try await others(session)
    if others.contains("qv-control") { return "qv-control" }
    return others.min { Int($0.dropFirst(3), radix: 36) ?? 0 < Int($1.dropFirst(3), radix: 36) ?? 0 } ?? ""
  }
}
