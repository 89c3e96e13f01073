import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@Suite("qmpctl: drives, monitors, screens, schemas on a real QEMU", .onEventLoop)
struct QMPControlDeviceTests {
  /// A machine that has a screen, with its firmware's words on it, and no guest.
  private static let withScreen = [
    "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--", "-vga", "std", "-boot", "menu=off",
  ]

  @Test("drives are added, replaced and removed, and refusals are in words") @EventLoopActor
  func storage() async throws {
    try await withMachine(Self.withScreen) { folder, daemon in
      let one = folder.appending("one.img")
      let two = folder.appending("two.img")
      for path in [one, two] { _ = try await command("truncate", ["-s", "1M", path.string]) }
      func storage(_ words: String...) async throws -> CommandResult { try await qmpctl(["storage"] + words, in: folder) }

      let added = try await storage("add", "web", "data", one.string, "--config=virtio-scsi")
      #expect(added.status == 0 && added.output == "" && added.error == "", "\(added)")
      let again = try await storage("add", "web", "data", two.string)
      #expect(again.status == 1 && again.error == "qmpctl: storage exists\n")
      #expect(try await daemon.qmp(#"{"execute":"query-named-block-nodes"}"#).contains(#"-size": 1048576"#))
      let replaced = try await storage("replace", "web", "data", two.string, "--json")
      #expect(replaced.status == 0 && replaced.output == "{}\n", "\(replaced)")
      #expect(try await storage("add", "web", "cd", one.string, "--config", "scsi-cd").status == 0)
      #expect(try await storage("remove", "web", "data").status == 0)
      let missing = try await storage("remove", "web", "nothing")
      #expect(missing.status == 1 && missing.error == "qmpctl: no such storage\n")
      let folderAsDrive = try await storage("add", "web", "x", folder.string)
      #expect(folderAsDrive.status == 1 && folderAsDrive.error.contains("is neither a file nor a block device"))
      #expect(try await storage("add", "web", "x", "/nowhere").error == "qmpctl: /nowhere: No such file or directory\n")
      #expect(try await storage("add", "web", "x", one.string, "--config=floppy").error.hasPrefix("qmpctl: bad config\n"))
    }
  }

  @Test("a monitor is added, speaks QMP and is removed") @EventLoopActor
  func monitors() async throws {
    try await withMachine { folder, _ in
      // A relative path is this program's, not the daemon's.
      let added = try await command(
        "env", ["-C", folder.string, qmpctlProgram, "monitor", "add", "web", "extra", "--listen", "extra"],
        environment: ["QMPCTL_PATH": folder.string])
      #expect(added.status == 0 && added.error == "", "\(added)")
      let socket = folder.appending("extra")
      let peer = try Peer(.connected(to: socket))
      try await peer.wait(for: #"{"QMP": "#)
      let monitors = try await qmpctl(["monitor", "list", "web", "--no-legend"], in: folder).output.split(separator: "\n")
      #expect(monitors.contains { $0.hasPrefix("extra ") && $0.hasSuffix(" \(socket)") && $0.contains(" active ") }, "\(monitors)")
      peer.close()
      #expect(try await qmpctl(["monitor", "remove", "web", "extra"], in: folder).status == 0)
      let missing = try await qmpctl(["monitor", "remove", "web", "extra"], in: folder)
      #expect(missing.status == 1 && missing.error.hasPrefix("qmpctl: no such monitor: extra\n'qmpctl monitors'"), "\(missing)")
      #expect(try await qmpctl(["monitor", "add", "web", "extra"], in: folder).status == 64)
    }
  }

  @Test("a screenshot is a PNG of the guest's screen, and a failed one leaves the file alone") @EventLoopActor
  func screenshot() async throws {
    try await withMachine(Self.withScreen) { folder, daemon in
      // The firmware writes to the screen; what is compared is one picture.
      #expect(try await daemon.call("io.systemd.MachineInstance.Pause").contains("error") == false)
      let file = folder.appending("screen.png")
      let taken = try await qmpctl(["screenshot", "web", file.string, "--json"], in: folder)
      #expect(taken.status == 0, "\(taken)")
      let seen = try await command(
        "/usr/bin/python3",
        ["-c", "import sys; from PIL import Image; i = Image.open(sys.argv[1]); i.load(); print(i.format, *i.size)", file.string])
      // What QEMU itself says of the same screen.
      let plain = folder.appending("screen.ppm")
      _ = try await daemon.qmp(#"{"execute":"screendump","arguments":{"filename":"\#(plain)"}}"#)
      let size = contents(of: plain).split(separator: "\n").dropFirst().first.map(String.init) ?? "?"
      #expect(seen.output == "PNG \(size)\n", "\(seen)")
      let report = try JSONVariant(parsing: taken.output)
      #expect(report["width"]?.integer.map { "\($0)" } == size.split(separator: " ").first.map(String.init))

      let piped = try await command(
        "bash", ["-c", "'\(qmpctlProgram)' screenshot web - | cmp - '\(file)'"], environment: ["QMPCTL_PATH": folder.string])
      #expect(piped.status == 0, "\(piped)")
      _ = try await command("bash", ["-c", "echo mine > '\(file)'"])
      let failed = try await qmpctl(["screenshot", "web", file.string, "--device=nothing"], in: folder)
      #expect(failed.status == 1 && failed.error.contains("'nothing'") && contents(of: file) == "mine\n", "\(failed)")
      #expect(try await qmpctl(["screenshot", "web", "/nowhere/screen.png"], in: folder).status == 1)
      // QEMU keeps nothing of it.
      #expect(try await daemon.qmp(#"{"execute":"query-fdsets"}"#) == #"{"return": []}"#)
      #expect(try await command("ls", [folder.string]).output == "screen.png\nscreen.ppm\nweb\n")
    }
  }

  @Test("a command's arguments and types, by its name or a part of names") @EventLoopActor
  func schema() async throws {
    try await withMachine { folder, _ in
      let screendump = try await qmpctl(["schema", "web", "screendump"], in: folder).output
      #expect(
        screendump == """
          screendump

          Arguments:
            filename  string
            device    string, optional
            head      int, optional
            format    ppm | png, optional

          Returns: none

          """)
      let status = try JSONVariant(parsing: try await qmpctl(["schema", "web", "query-status", "-j"], in: folder).output)
      #expect(status["kind"]?.string == "command" && status["returns"]?["members"]?.elements?.count == 2)
      let deleted = try await qmpctl(["schema", "web", "DEVICE_DELETED"], in: folder).output
      #expect(deleted.contains("Data:\n  device  string, optional\n  path    string\n"))
      let found = try await qmpctl(["schema", "web", "Screen"], in: folder)
      #expect(found.status == 0 && found.output == "screendump\n")
      let all = try await qmpctl(["schema", "web"], in: folder).output.split(separator: "\n")
      #expect(all.count > 200 && all.contains("qom-get") && all.contains("STOP"))
      let none = try await qmpctl(["schema", "web", "xyzzy"], in: folder)
      #expect(none.status == 1 && none.error.contains("'xyzzy'"))
      // Types that refer to each other in circles have an end, however far one looks.
      let deepest = try await qmpctl(["schema", "web", "blockdev-add", "--depth=8"], in: folder)
      #expect(deepest.status == 0 && deepest.output.utf8.count < 16 << 20)
    }
  }
}
