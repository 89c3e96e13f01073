import Bridge
import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing
import Varlink

/// systemd-machined runs for real, on a bus of its own, in a mount namespace that has another `/run`; there is no service manager, so
/// the machine's unit is one that QEMU claims to be in.
@Suite("machinectl of systemd, on a machine that is registered", .onEventLoop, .serialized)
struct MachinectlTests {
  @Test("list, status, pause, resume, reboot, bind-volume, unbind-volume, poweroff; then the machine is gone") @EventLoopActor
  func guest() async throws {
    try await inMachinedsWorld { machined in
      try await withTemporaryDirectory { folder in
        try await Guest.make(in: folder)
        let (_, status) = try await withDaemon(Self.registered(Guest.arguments(in: folder)), launcher: machined.launcher) { daemon in
          let guest = try await Guest.boot(in: folder)
          let qemu = try daemon.qemu()
          #expect(daemon.notified.contains { $0.hasPrefix("READY=1\n") && $0.hasSuffix("\nX_VMSPAWN_LEADER_PID=\(qemu)") })

          let list = try await machined.command("machinectl", ["list", "--no-legend"])
          #expect(list.output.split(whereSeparator: \.isWhitespace).prefix(3) == ["guest", "vm", "qmp-varlinkd"], "\(list.error)")
          let status = try await machined.command("machinectl", ["status", "guest"])
          #expect(status.output.contains("Leader: \(qemu) (qemu-system-x86)") && status.output.contains("class vm"), "\(status)")
          let shown = try await machined.command("machinectl", ["show", "guest"]).output.split(separator: "\n")
          #expect(shown.contains("Leader=\(qemu)") && shown.contains("Supervisor=\(daemon.process)"))
          #expect(shown.contains("Unit=qmp-varlink-test.service") && shown.contains("State=running"))

          for (verb, status) in [("pause", "paused"), ("resume", "running")] {
            let result = try await machined.command("machinectl", [verb, "guest"])
            #expect(result.status == 0, "\(verb): \(result.error)")
            #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains(#""status":"\#(status)""#))
          }

          let made = try await command("truncate", ["--size=3M", machined.run.appending("storage/data.volume").string])
          #expect(made.status == 0)
          let bound = try await machined.command("machinectl", ["bind-volume", "guest", "fs:data"])
          #expect(bound.status == 0, "\(bound.error)")
          _ = try await guest.run("until [ -e /sys/block/vda ]; do :; done")
          #expect(try await guest.run("cat /sys/block/vda/size") == "6144\n")
          let twice = try await machined.command("machinectl", ["bind-volume", "guest", "fs:data"])
          #expect(twice.status != 0 && twice.error.contains("io.systemd.MachineInstance.StorageExists"), "\(twice)")
          // The guest is done with the disk a moment before QEMU is.
          let subscriber = try daemon.connect()
          _ = try await subscriber.call(
            "io.systemd.MachineInstance.SubscribeEvents", #"{"filter":["DEVICE_DELETED"]}"#, flags: #","more":true"#)
          let unbound = try await machined.command("machinectl", ["unbind-volume", "guest", "fs:data"])
          #expect(unbound.status == 0, "\(unbound.error)")
          #expect(try await guest.run("until [ ! -e /sys/block/vda ]; do :; done; echo gone") == "gone\n")
          while try await !subscriber.receive().contains(#""device":"qv-d"#) {}
          let unknown = try await machined.command("machinectl", ["unbind-volume", "guest", "fs:data"])
          #expect(unknown.status != 0 && unknown.error.contains("io.systemd.MachineInstance.NoSuchStorage"), "\(unknown)")

          // A guest that starts over is the same machine.
          let said = guest.console.text.count
          let rebooted = try await machined.command("machinectl", ["reboot", "guest"])
          #expect(rebooted.status == 0, "\(rebooted.error)")
          try await guest.console.wait("the guest's second start") { $0.text.dropFirst(said).contains("guest: up") }
          #expect(try await machined.command("machinectl", ["show", "guest", "--property=Leader"]).output == "Leader=\(qemu)\n")

          let watcher = try daemon.connect()
          let off = try await machined.command("machinectl", ["poweroff", "guest"])
          #expect(off.status == 0, "\(off.error)")
          try await watcher.peer.waitForEnd()
        }
        #expect(status == 0)
        #expect(try await machined.command("machinectl", ["list", "--no-legend"]).output == "")
      }
    }
  }

  @Test("terminate") @EventLoopActor
  func terminate() async throws {
    try await inMachinedsWorld { machined in
      let (_, status) = try await withDaemon(Self.registered(bareMachine), launcher: machined.launcher) { daemon in
        let watcher = try daemon.connect()
        let result = try await machined.command("machinectl", ["terminate", "test"])
        #expect(result.status == 0, "\(result.error)")
        try await watcher.peer.waitForEnd()
      }
      #expect(status == 0)
      #expect(try await machined.command("machinectl", ["list", "--no-legend"]).output == "")
    }
  }

  @Test("a machine whose daemon was killed is registered anew by the daemon that attaches to it, with its UUID") @EventLoopActor
  func killedDaemon() async throws {
    try await inMachinedsWorld { machined in
      try await withTemporaryDirectory { folder in
        let id = "0f9c8d7e-6b5a-4938-8271-605f4e3d2c1b"
        let first = Self.registered(bareMachine, ["--keep-running"]) + ["-uuid", id]
        let qemu = Promise<Int32>()
        _ = try await withDaemon(first, directory: folder, launcher: machined.launcher) { daemon in
          qemu.fulfil(try daemon.qemu())
          let watcher = try daemon.connect()
          daemon.signal(SIGKILL)
          try await watcher.peer.waitForEnd()
        }
        let leader = try await qemu.soon()
        defer { kill(leader, SIGKILL) }
        #expect(try await machined.command("machinectl", ["show", "test", "--property=Leader"]).output == "Leader=\(leader)\n")
        let second = ["attach", "--machine", "test", "--qmp", "unix:\(folder.appending("qmp"))", "--register=yes"]
        let (_, status) = try await withDaemon(second, launcher: machined.launcher) { daemon in
          let shown = try await machined.command("machinectl", ["show", "test"]).output.split(separator: "\n")
          #expect(shown.contains("Leader=\(leader)") && shown.contains("Supervisor=\(daemon.process)"))
          #expect(shown.contains("Id=\(id.filter { $0 != "-" })"))
          #expect(daemon.notified.contains { $0.hasSuffix("X_VMSPAWN_LEADER_PID=\(leader)") })
          let paused = try await machined.command("machinectl", ["pause", "test"])
          #expect(paused.status == 0, "\(paused.error)")
        }
        #expect(status == 0)
        // The machine goes on, but nobody controls it.
        #expect(kill(leader, 0) == 0)
        #expect(try await machined.command("machinectl", ["list", "--no-legend"]).output == "")
      }
    }
  }

  @Test("another machine of the same name keeps it") @EventLoopActor
  func nameTaken() async throws {
    try await inMachinedsWorld { machined in
      _ = try await withDaemon(Self.registered(bareMachine), launcher: machined.launcher) { daemon in
        let program = productsDirectory.appending("qmp-varlinkd").string
        try await withTemporaryDirectory { folder in
          let arguments = Self.registered(bareMachine, ["--runtime-directory", folder.string])
          let second = try await machined.command(program, arguments)
          #expect(second.status == 70)
          #expect(second.error.contains("io.systemd.Machine.MachineExists"), "\(second.error)")
        }
        let shown = try await machined.command("machinectl", ["show", "test", "--property=Supervisor"])
        #expect(shown.output == "Supervisor=\(daemon.process)\n")
      }
    }
  }

  @Test("whatever is told of a machine is what machined's interface takes") @EventLoopActor
  func interface() async throws {
    try await inMachinedsWorld { machined in
      let shipped = try await machined.command(
        "varlinkctl", ["introspect", "/run/systemd/machine/io.systemd.Machine", "io.systemd.Machine"])
      #expect(shipped.status == 0, "\(shipped.error)")
      let folder = try TemporaryFolder()
      let socket = folder.path.appending("socket")
      let server = try VarlinkServer(VarlinkServer.Info(vendor: "", product: "", version: "")) { _ in VarlinkError("io.systemd.System") }
      try server.add(VarlinkInterface(parsing: shipped.output))
      let came = Promise<JSONVariant>()
      try server.bind("io.systemd.Machine.Register") { call in
        came.fulfil(call.parameters)
        return nil
      }
      try server.listen(on: socket, mode: 0o600)
      try server.serve()
      var machine = MachineDescription(name: "web", controlAddress: "/run/web/control")
      machine.id = String(repeating: "01", count: 16)
      machine.leader = try ProcessIdentity(of: getpid())
      machine.vsockCID = UInt32.max - 1
      machine.networkInterfaces = [1, 2]
      machine.rootDirectory = "/srv/web"
      machine.sshAddress = "vsock/3"
      machine.sshPrivateKey = "/run/web/key"
      machine.allocatesUnit = true
      machine.allowsInteractiveAuthentication = true
      _ = try await VarlinkClient(connectingTo: socket).call("io.systemd.Machine.Register", machine.parameters, within: patience)
      let parameters = try await came.soon()
      #expect(parameters == machine.parameters)
      #expect(parameters.members?.count == 13)
      // Linux since 6.9 has all three.
      #expect(parameters["leaderProcessId"]?.members?.map(\.name) == ["pid", "pidfdId", "bootId"])
    }
  }

  /// The arguments for a machine that is to be registered, and whose QEMU has a unit.
  private static func registered(_ arguments: [String], _ more: [String] = []) -> [String] {
    let separator = arguments.firstIndex(of: "--") ?? arguments.endIndex
    return arguments[..<separator] + ["--register=yes", "--keep-unit", "--qemu", "/run/qemu"] + more + arguments[separator...]
  }
}

@EventLoopActor
private func inMachinedsWorld<Result: Sendable>(
  _ body: @escaping @EventLoopActor (RunningMachined) async throws -> Result
) async throws -> Result {
  guard let script = Bundle.module.path(forResource: "run_machined", ofType: nil, inDirectory: "Clients") else {
    throw RunningDaemon.Failure("no script that runs systemd-machined")
  }
  return try await withMachined(FilePath(script), body)
}
