import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("from the start of a machine to its end", .onEventLoop)
struct LifecycleTests {
  private static let daemon = productsDirectory.appending("qmp-varlinkd").string

  @Test("kill -9 of QEMU: callers, subscribers and sessions learn of it, and the exit status tells") @EventLoopActor
  func qemuKilled() async throws {
    let (_, status) = try await withDaemon(bareMachine) { daemon in
      let qemu = try daemon.qemu()
      let negotiated = try await daemon.acquireQMP()
      try await negotiated.write(#"{"execute":"qmp_capabilities"}"#)
      try await negotiated.wait(for: #"{"return": {}}"#)
      let silent = try await daemon.acquireQMP()
      let subscriber = try daemon.connect()
      _ = try await subscriber.call("io.systemd.MachineInstance.SubscribeEvents", flags: #","more":true"#)
      // Stopped, QEMU answers nothing, so that these calls are in flight for sure.
      kill(qemu, SIGSTOP)
      let callers = try (0..<3).map { _ in try daemon.connect() }
      for caller in callers { try await caller.send("io.systemd.MachineInstance.Describe") }
      let acquirer = try daemon.connect()
      try await acquirer.send("io.systemd.QemuMachineInstance.AcquireQMP", flags: #","upgrade":true"#)
      try await negotiated.write(#"{"execute":"query-status"}"#)
      kill(qemu, SIGKILL)
      try await known {
        for caller in callers + [acquirer] {
          #expect(try await caller.receive().contains(#""error":"io.systemd.MachineInstance.NotConnected""#))
        }
        try await negotiated.waitForEnd()
        try await silent.waitForEnd()
      }
      #expect(try await subscriber.receive().contains(#""event":"SHUTDOWN","data":{"guest":false,"reason":"disconnected"}"#))
      try await subscriber.peer.waitForEnd()
    }
    #expect(status == 128 + SIGKILL)
  }

  @Test("Terminate ends sessions after what QEMU still says, and the daemon with status 0") @EventLoopActor
  func terminate() async throws {
    let (_, status) = try await withDaemon(bareMachine) { daemon in
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"}"#)
      try await session.wait(for: #"{"return": {}}"#)
      #expect(try await daemon.call("io.systemd.MachineInstance.Terminate") == "{}")
      try await session.waitForEnd()
      #expect(session.text.contains(#""event": "SHUTDOWN""#))
    }
    #expect(status == 0)
  }

  @Test("quit on a session is answered there") @EventLoopActor
  func quitOnSession() async throws {
    let (_, status) = try await withDaemon(bareMachine) { daemon in
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"}{"execute":"quit","id":"last"}"#)
      try await known { try await session.waitForEnd() }
      #expect(session.text.hasSuffix("{\"return\": {}, \"id\": \"last\"}\r\n"))
    }
    #expect(status == 0)
  }

  @Test("QEMU's own words and status when it does not start") @EventLoopActor
  func startFails() async throws {
    try await withTemporaryDirectory { folder in
      let arguments = ["run", "--machine", "test", "--accel", "tcg", "--runtime-directory", folder.string, "--"]
      let refused = try await command(Self.daemon, arguments + ["-machine", "none", "-device", "nonsense"])
      #expect(refused.status == 1)
      #expect(refused.error.contains("'nonsense' is not a valid device model name"))
      let missing = try await command(
        Self.daemon, ["run", "--machine", "test", "--qemu", "/nonexistent/qemu", "--runtime-directory", folder.string])
      #expect(missing.status == 70, "the daemon's own failure")
      #expect(missing.error.contains("cannot start /nonexistent/qemu: No such file or directory"))
    }
  }

  @Test("QEMU ends with the daemon, also when that is killed") @EventLoopActor
  func endsWithTheDaemon() async throws {
    try await withTemporaryDirectory { folder in
      let qmp = folder.appending("qmp")
      let (direct, status) = try await withDaemon(bareMachine + ["-qmp", "unix:\(qmp),server=on,wait=off"]) { daemon in
        let direct = try Peer(.connected(to: qmp))
        try await direct.wait(for: "QMP")
        daemon.signal(SIGKILL)
        return direct
      }
      #expect(status == 128 + SIGKILL)
      try await known { try await direct.waitForEnd() }
    }
  }

  @Test("a QEMU that cannot be told to end with the daemon is started without that") @EventLoopActor
  func oldQEMU() async throws {
    try await withTemporaryDirectory { folder in
      let old = folder.appending("qemu")
      let script = """
        #!/bin/sh
        case "$*" in *-run-with*) echo "qemu: -run-with: invalid option" >&2; exit 1 ;; esac
        exec qemu-system-x86_64 "$@"
        """
      try Data(script.utf8).write(to: URL(filePath: old.string))
      try #require(chmod(old.string, 0o755) == 0)
      let arguments = ["run", "--qemu", old.string] + bareMachine.dropFirst()
      let (log, status) = try await withDaemon(arguments) { daemon async throws in
        #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
        return daemon.log
      }
      #expect(log.contains("this QEMU cannot be made to end with the daemon"))
      #expect(status == 0)
    }
  }

  @Test("with --keep-running QEMU outlives the daemon, however that ends, and is attached to again", arguments: [SIGTERM, SIGKILL])
  @EventLoopActor
  func keepRunning(signal: CInt) async throws {
    try await withTemporaryDirectory { folder in
      let (qemu, status) = try await withDaemon(["run", "--keep-running"] + bareMachine.dropFirst(), directory: folder) { daemon in
        let session = try await daemon.acquireQMP()
        let qemu = try daemon.qemu()
        daemon.signal(signal)
        try await known { try await session.waitForEnd() }
        return qemu
      }
      #expect(status == (signal == SIGTERM ? 0 : 128 + signal))
      let attached = ["attach", "--machine", "test", "--qmp", "unix:\(folder.appending("qmp"))"]
      let (_, ended) = try await withDaemon(attached, directory: folder) { daemon async throws in
        #expect(kill(qemu, 0) == 0)
        #expect(try await daemon.qmp(#"{"execute":"query-name"}"#).contains("test"))
        #expect(try await daemon.call("io.systemd.MachineInstance.Terminate") == "{}")
      }
      #expect(ended == 0)
    }
  }

  @Test("drives that a daemon has added are found by the next: replaced and removed by their names") @EventLoopActor
  func drivesOutliveTheDaemon() async throws {
    try await withTemporaryDirectory { folder in
      @EventLoopActor func image(_ name: String) throws -> DiskImage { try DiskImage(folder.appending(name), size: 1 << 20) }
      let boot = try image("boot")
      let machine = [
        "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--keep-running", "--image", folder.appending("boot").string,
      ]
      let names = ["a disk", "ü/\"", "third"]
      let (_, killed) = try await withDaemon(machine, directory: folder) { daemon async throws in
        for (name, config) in zip(names, ["virtio-scsi", "virtio-blk", "nvme"]) {
          #expect(try await daemon.addStorage(Self.escaped(name), config, image("\(config)-1")) == "{}")
        }
        #expect(try await daemon.replaceStorage(names[0], image("replaced")) == "{}")
        daemon.signal(SIGKILL)
      }
      #expect(killed == 128 + SIGKILL)
      let attached = ["attach", "--machine", "test", "--qmp", "unix:\(folder.appending("qmp"))"]
      let (_, ended) = try await withDaemon(attached, directory: folder) { daemon in
        let subscriber = try daemon.connect()
        _ = try await subscriber.call(
          "io.systemd.MachineInstance.SubscribeEvents", #"{"filter":["DEVICE_DELETED"]}"#, flags: #","more":true"#)
        for name in names {
          #expect(
            try await daemon.addStorage(Self.escaped(name), "virtio-scsi", image("other"))
              == #"{"error":"io.systemd.MachineInstance.StorageExists"}"#)
        }
        #expect(try await daemon.replaceStorage(names[0], image("again")) == "{}")
        #expect(try await daemon.replaceStorage(Self.escaped(names[1]), image("fourth")) == "{}")
        #expect(try await daemon.removeStorage("vmspawn-0-disk") == #"{"error":"io.systemd.MachineInstance.StorageImmutable"}"#)
        // A SCSI drive goes without a guest's help.
        #expect(try await daemon.removeStorage(names[0]) == "{}")
        #expect(try await subscriber.receive().contains(#""device":"qv-d"#))
        #expect(try await daemon.removeStorage(names[0]) == #"{"error":"io.systemd.MachineInstance.NoSuchStorage"}"#)
        #expect(try await daemon.addStorage(names[0], "virtio-scsi", image("new")) == "{}")
        // Three ports of ten are taken: by two drives and by the controller, which is used again.
        for number in 0..<7 { #expect(try await daemon.addStorage("\(number)", "virtio-blk", image("more-\(number)")) == "{}") }
        #expect(try await daemon.addStorage("8", "nvme", image("more-8")).contains("ENOSPC"))
        #expect(try await daemon.call("io.systemd.MachineInstance.Terminate") == "{}")
      }
      #expect(ended == 0)
      withExtendedLifetime(boot.descriptor.raw) {}
    }
  }

  /// A name inside a JSON string.
  private static func escaped(_ name: String) -> String { name.replacing("\"", with: "\\\"") }

  @Test("a guest that panics has an exit status of its own") @EventLoopActor
  func guestPanics() async throws {
    let (_, status) = try await withDaemon(bareMachine) { daemon in
      _ = try await daemon.call("io.systemd.MachineInstance.Describe")
      daemon.signal(SIGTERM)
    }
    #expect(status == 0)
    // Firmware that writes to the panic device's port: mov dx, 0x505; mov al, 1; out dx, al; hlt.
    try await withTemporaryDirectory { folder in
      var firmware = [UInt8](repeating: 0x90, count: 65536)
      let code: [UInt8] = [0xBA, 0x05, 0x05, 0xB0, 0x01, 0xEE, 0xF4]
      firmware.replaceSubrange(0xFFE0..<(0xFFE0 + code.count), with: code)
      // The reset vector jumps back to that.
      firmware.replaceSubrange(0xFFF0..<0xFFF3, with: [0xE9, 0xED, 0xFF])
      let file = folder.appending("firmware")
      try Data(firmware).write(to: URL(filePath: file.string))
      let (_, panicked) = try await withDaemon([
        "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--", "-machine", "pc", "-bios", file.string, "-device", "pvpanic",
        "-S",
      ]) { daemon in
        let subscriber = try daemon.connect()
        _ = try await subscriber.call("io.systemd.MachineInstance.SubscribeEvents", flags: #","more":true"#)
        #expect(try await daemon.call("io.systemd.MachineInstance.Resume") == "{}")
        try await subscriber.peer.waitForEnd()
        #expect(subscriber.peer.text.contains("GUEST_PANICKED") && subscriber.peer.text.contains("guest-panic"))
      }
      #expect(panicked == 3)
    }
  }

  @Test("a second daemon for the same machine is refused, in words") @EventLoopActor
  func secondDaemon() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let second = try await command(Self.daemon, ["run", "--machine", "test", "--runtime-directory", daemon.directory.string])
      #expect(second.status == 70)
      #expect(second.error.contains("machine 'test' is served already"))
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
    }
  }

  @Test("the control socket is its owner's alone, and goes with the daemon") @EventLoopActor
  func controlSocket() async throws {
    let (socket, _) = try await withDaemon(bareMachine) { daemon in
      var status = stat()
      #expect(daemon.socket.withPlatformString { stat($0, &status) } == 0)
      #expect(status.st_mode & 0o777 == 0o600)
      return daemon.socket
    }
    #expect(socket.withPlatformString { access($0, F_OK) } != 0)
  }

  @Test("a guest that does not power off is told to quit after --stop-timeout") @EventLoopActor
  func stopTimeout() async throws {
    let (log, status) = try await withDaemon([
      "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--stop-timeout", "0", "--", "-machine", "none",
    ]) { daemon in
      let subscriber = try daemon.connect()
      _ = try await subscriber.call("io.systemd.MachineInstance.SubscribeEvents", flags: #","more":true"#)
      daemon.signal(SIGTERM)
      try await subscriber.peer.waitForEnd()
      #expect(subscriber.peer.text.contains("POWERDOWN") && subscriber.peer.text.contains("SHUTDOWN"))
      return daemon.log
    }
    #expect(log.contains("telling QEMU to quit"))
    #expect(status == 0)
  }

  @Test("attach serves a QEMU that runs already, replaces a dead daemon's socket, and leaves QEMU running") @EventLoopActor
  func attach() async throws {
    try await withTemporaryDirectory { folder in
      let qmp = folder.appending("qmp")
      let daemonFolder = folder.appending("daemon")
      let machine = [
        "run", "--machine", "under", "--accel", "tcg", "--memory", "64M", "--", "-machine", "none", "-qmp",
        "unix:\(qmp),server=on,wait=off",
      ]
      _ = try await withDaemon(machine) { under in
        let attached = ["attach", "--machine", "over", "--qmp", "unix:\(qmp)"]
        let (session, killed) = try await withDaemon(attached, directory: daemonFolder) { daemon in
          let session = try await daemon.acquireQMP()
          daemon.signal(SIGKILL)
          return session
        }
        #expect(killed == 128 + SIGKILL)
        try await session.waitForEnd()

        let (open, status) = try await withDaemon(attached, directory: daemonFolder) { daemon in
          #expect(try await daemon.qmp(#"{"execute":"query-status"}"#) == #"{"return": {"status": "running", "running": true}}"#)
          let open = try await daemon.acquireQMP()
          try await open.write(#"{"execute":"qmp_capabilities"}"#)
          try await open.wait(for: #"{"return": {}}"#)
          // What the dead daemon left is removed, once it is quiet.
          var left = 1
          while left > 0 {
            left = try await daemon.qmp(#"{"execute":"query-chardev"}"#).components(separatedBy: "disconnected:fd:").count - 1
          }
          daemon.signal(SIGTERM)
          try await open.waitForEnd()
          return open
        }
        #expect(status == 0)
        #expect(open.text.contains("QMP"))
        #expect(try await under.call("io.systemd.MachineInstance.Describe").contains("running"))

        // The second daemon took all that was its own along.
        let chardevs = try await under.qmp(#"{"execute":"query-chardev"}"#)
        #expect(!chardevs.contains("disconnected:fd:"), "\(chardevs)")
      }
    }
  }

  @Test("attach to a QEMU that goes away ends with status 69") @EventLoopActor
  func attachedQEMUKilled() async throws {
    try await withTemporaryDirectory { folder in
      let qmp = folder.appending("qmp")
      let machine = [
        "run", "--machine", "under", "--accel", "tcg", "--memory", "64M", "--", "-machine", "none", "-qmp",
        "unix:\(qmp),server=on,wait=off",
      ]
      _ = try await withDaemon(machine) { under in
        let qemu = try under.qemu()
        let (_, status) = try await withDaemon(
          ["attach", "--machine", "over", "--qmp", "unix:\(qmp)"], directory: folder.appending("over")
        ) { daemon in
          let session = try await daemon.acquireQMP()
          let subscriber = try daemon.connect()
          _ = try await subscriber.call("io.systemd.MachineInstance.SubscribeEvents", flags: #","more":true"#)
          kill(qemu, SIGKILL)
          try await known { try await session.waitForEnd() }
          // Ends when the daemon knows; the signals that end this test come after that.
          try await subscriber.peer.waitForEnd()
        }
        #expect(status == 69)
      }
      let nobody = try await command(
        Self.daemon,
        ["attach", "--machine", "over", "--qmp", "unix:\(folder)/nobody", "--runtime-directory", folder.appending("over").string])
      #expect(nobody.status == 70)
      #expect(nobody.error.contains("cannot connect to \(folder)/nobody: No such file or directory"))
    }
  }

  @Test("QEMU inherits nothing that it was not given") @EventLoopActor
  func inheritedDescriptors() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let qemu = try daemon.qemu()
      _ = try await daemon.call("io.systemd.MachineInstance.Describe")
      // Standard input, output and error, the control monitor, and what QEMU makes itself.
      let listing = try await command("sh", ["-c", "cd /proc/\(qemu)/fd && for f in [3-9] ??; do readlink $f; done"])
      let sockets = listing.output.split(separator: "\n").filter { $0.hasPrefix("socket:") }
      #expect(sockets.count == 1, "\(listing.output)")
      #expect(!listing.output.contains(daemon.directory.string), "\(listing.output)")
    }
  }

  @Test("a disk image's format is detected", arguments: ["raw", "qcow2"]) @EventLoopActor
  func diskImage(format: String) async throws {
    try await withTemporaryDirectory { folder in
      let image = folder.appending("an image, with a comma")
      try #require(await command("qemu-img", ["create", "-q", "-f", format, image.string, "1M"]).status == 0)
      let machine = ["run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--stop-timeout", "0", "--image", image.string]
      _ = try await withDaemon(machine) { daemon in
        let block = try await daemon.qmp(#"{"execute":"query-block"}"#)
        #expect(block.contains(#""drv": "\#(format)""#), "\(block)")
      }
    }
  }

  @Test("a Linux guest boots from kernel and RAM disk, and powers off at SIGTERM") @EventLoopActor
  func linuxGuest() async throws {
    try await withTemporaryDirectory { folder in
      let made = try await command(try repositoryRoot().appending("examples/guest/make-guest").string, [folder.string])
      try #require(made.status == 0, "\(made.error)")
      let console = folder.appending("console")
      let machine = [
        "run", "--machine", "guest", "--kernel", folder.appending("vmlinuz").string, "--initrd", folder.appending("initrd").string,
        // The kernel checks its timer in the first moments, and panics on a machine that is busy with other things.
        "--append", "console=ttyS0 quiet no_timer_check", "--memory", "256M", "--console", console.string,
      ]
      let (_, status) = try await withDaemon(machine) { daemon in
        let up = try await command("timeout", ["120", "sh", "-c", "tail -n +1 -F \(console) 2>/dev/null | grep -qm1 'guest: up'"])
        try #require(up.status == 0, "\(contents(of: console))")
        let subscriber = try daemon.connect()
        _ = try await subscriber.call("io.systemd.MachineInstance.SubscribeEvents", flags: #","more":true"#)
        daemon.signal(SIGTERM)
        try await subscriber.peer.waitForEnd()
        #expect(subscriber.peer.text.contains(#""event":"POWERDOWN""#))
        #expect(subscriber.peer.text.contains(#""event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}"#))
      }
      #expect(status == 0)
    }
  }

  /// The checkout that these tests were built from.
  private func repositoryRoot(_ file: StaticString = #filePath) throws -> FilePath {
    FilePath("\(file)").removingLastComponent().removingLastComponent().removingLastComponent()
  }
}
