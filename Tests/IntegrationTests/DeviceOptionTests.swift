import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("the options for devices, as a booted guest sees them", .onEventLoop, .serialized)
struct DeviceOptionTests {
  @Test("disks of every type, a block device, credentials, UUID, TPM, network and folders") @EventLoopActor
  func seenByTheGuest() async throws {
    try await withTemporaryDirectory { folder in
      try await Guest.make(in: folder)
      @EventLoopActor func disk(_ name: String, _ size: Int) throws -> String {
        withExtendedLifetime(try DiskImage(folder.appending(name), size: size << 20, contents: "this is \(name)")) {}
        return folder.appending(name).string
      }
      let shared = folder.appending("shared")
      try FileManager.default.createDirectory(atPath: shared.string, withIntermediateDirectories: false)
      try Data("from the host\n".utf8).write(to: URL(filePath: shared.appending("file").string))
      try Data("loaded\0value".utf8).write(to: URL(filePath: folder.appending("secret").string))
      let port = try Self.freePort()
      let options = [
        "--image", try disk("boot", 3), "--extra-drive=nvme:\(try disk("second", 4))",
        "--extra-drive=raw:virtio-scsi:\(try disk("third", 5))",
        "--extra-drive=scsi-cd:\(try disk("fourth", 6))", "--set-credential=test.literal:a\\tvalue",
        "--load-credential=test.file:\(folder.appending("secret"))", "--smbios11=io.systemd.test:as it is, with a comma",
        "--uuid=0123456789abcdef0123456789abcdef", "--network=user", "--forward=\(port):7", "--tpm=yes", "--bind=\(shared):/mnt/shared",
        "--kvm=no",
      ]
      let (programs, status) = try await LoopDevice.with(folder.appending("loop"), size: 7 << 20) { loop in
        try await withDaemon(Guest.arguments(in: folder, options: options + ["--extra-drive=\(loop.path)"])) { daemon in
          // QEMU, swtpm and virtiofsd, with its own child.
          let programs = daemon.children
          #expect(programs.count == 3)
          let guest = try await Guest.boot(in: folder)
          for (device, megabytes, name) in [("vda", 3, "boot"), ("nvme0n1", 4, "second"), ("sda", 5, "third"), ("sr0", 6, "fourth")] {
            #expect(
              try await guest.run("until head -c 1 /dev/\(device) >/dev/null 2>&1; do :; done; cat /sys/block/\(device)/size")
                == "\(megabytes * 2048)\n")
            #expect(try await guest.run("head -c \("this is \(name)".utf8.count) /dev/\(device); echo") == "this is \(name)\n")
          }
          #expect(try await guest.run("cat /sys/block/vda/serial; echo") == "boot\n")
          #expect(try await guest.run("cat /sys/block/vdb/size") == "\(7 * 2048)\n")
          try await Self.writeThrough(guest, "vdb", folder.appending("loop"))

          let strings = try await guest.run("cat /sys/firmware/dmi/entries/11-*/raw | tr '\\0' '\\n'")
          #expect(strings.contains("io.systemd.credential.binary:test.literal=\(Data("a\tvalue".utf8).base64EncodedString())\n"))
          #expect(strings.contains("io.systemd.credential.binary:test.file=\(Data("loaded\0value".utf8).base64EncodedString())\n"))
          #expect(strings.contains("io.systemd.test:as it is, with a comma\n"))
          let mount = "mnt0 /mnt/shared virtiofs rw,x-initrd.mount\n"
          #expect(strings.contains("io.systemd.credential.binary:fstab.extra=\(Data(mount.utf8).base64EncodedString())\n"))
          #expect(try await guest.run("cat /sys/class/dmi/id/product_uuid") == "01234567-89ab-cdef-0123-456789abcdef\n")
          #expect(try await guest.run("cat /sys/class/tpm/tpm0/tpm_version_major") == "2\n")

          #expect(try await guest.run("mkdir -p /mnt && mount -t virtiofs mnt0 /mnt && cat /mnt/file") == "from the host\n")
          _ = try await guest.run("echo from the guest >/mnt/reply; sync")
          #expect(contents(of: shared.appending("reply")) == "from the guest\n")

          #expect(try await guest.run("cat /sys/class/net/eth0/device/vendor") == "0x1af4\n")
          // A connection that comes before somebody listens is refused.
          let listen = "(echo to the host | nc -l -p 7) & until cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q ':0007 '; do :; done"
          _ = try await guest.run("ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; \(listen)")
          #expect(try await Self.read(port: port) == "to the host\n")

          // All ten places for what comes later are free still, and a block device can be one of those too.
          try await LoopDevice.with(folder.appending("later"), size: 8 << 20) { later in
            let device = try DiskImage(device: later.path)
            #expect(try await daemon.addStorage("later", "virtio-blk", device) == "{}")
            #expect(try await guest.run("until head -c 1 /dev/vdc >/dev/null 2>&1; do :; done; cat /sys/block/vdc/size") == "\(8 * 2048)\n")
            try await Self.writeThrough(guest, "vdc", folder.appending("later"))
            #expect(try await daemon.removeStorage("later") == "{}")
            #expect(try await guest.run("until [ ! -e /sys/block/vdc ]; do :; done; echo gone") == "gone\n")
          }
          for number in 0..<5 {
            #expect(try await daemon.removeStorage("vmspawn-\(number)-disk") == #"{"error":"io.systemd.MachineInstance.StorageImmutable"}"#)
          }
          // The sets that the drives are from have no descriptors of their own any more.
          let sets = try await daemon.qmp(#"{"execute":"query-fdsets"}"#)
          #expect(!sets.contains(#""fd":"#), "\(sets)")
          return programs
        }
      }
      #expect(status == 0)
      for process in programs { #expect(kill(process, 0) != 0) }
    }
  }

  @Test("an ephemeral image is not written to, and nothing is left of what was", arguments: ["raw", "qcow2"]) @EventLoopActor
  func ephemeral(format: String) async throws {
    try await withTemporaryDirectory { folder in
      try await Guest.make(in: folder)
      let raw = folder.appending("raw")
      withExtendedLifetime(try DiskImage(raw, size: 3 << 20, contents: "what was there")) {}
      let image = folder.appending("image")
      try #require(await command("qemu-img", ["convert", "-O", format, raw.string, image.string]).status == 0)
      try #require(chmod(image.string, 0o444) == 0)
      let before = try await command("sha256sum", [image.string]).output
      let overlays = folder.appending("overlays")
      try FileManager.default.createDirectory(atPath: overlays.string, withIntermediateDirectories: false)
      setenv("TMPDIR", overlays.string, 1)
      defer { unsetenv("TMPDIR") }
      let (_, status) = try await withDaemon(Guest.arguments(in: folder, options: ["--image", image.string, "--ephemeral"])) { daemon in
        let guest = try await Guest.boot(in: folder)
        #expect(try await guest.run("cat /sys/block/vda/size") == "6144\n")
        #expect(try await guest.run("head -c 14 /dev/vda; echo") == "what was there\n")
        _ = try await guest.run(
          "echo something new | dd of=/dev/vda conv=fsync 2>/dev/null; dd if=/dev/zero of=/dev/vda bs=1M seek=1 count=2 conv=fsync 2>/dev/null"
        )
        #expect(try await guest.run("dd if=/dev/vda bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1") == "something new\n")
        let seen = try FileManager.default.contentsOfDirectory(atPath: overlays.string)
        #expect(seen == [])
      }
      #expect(status == 0)
      #expect(try await command("sha256sum", [image.string]).output == before)
      #expect(try FileManager.default.contentsOfDirectory(atPath: overlays.string) == [])
    }
  }

  @Test("a guest starts from UEFI, whose variables are its own, and is told of a folder that is its root") @EventLoopActor
  func uefi() async throws {
    try await withTemporaryDirectory { folder in
      try await Guest.make(in: folder)
      let root = folder.appending("root")
      try FileManager.default.createDirectory(atPath: root.appending("etc").string, withIntermediateDirectories: true)
      let (_, status) = try await withDaemon(
        Guest.arguments(in: folder, options: ["--directory=\(root)", "--firmware=uefi", "--secure-boot=no", "--memory", "512M"])
      ) { daemon in
        let guest = try await Guest.boot(in: folder)
        #expect(try await guest.run("cat /proc/cmdline").contains("no_timer_check root=root rootfstype=virtiofs rw"))
        #expect(try await guest.run("mkdir -p /mnt && mount -t virtiofs root /mnt && ls /mnt") == "etc\n")
        #expect(try await guest.run("ls -d /sys/firmware/efi") == "/sys/firmware/efi\n")
        let blocks = try await daemon.qmp(#"{"execute":"query-named-block-nodes","arguments":{"flat":true}}"#)
        #expect(blocks.contains(#""node-name": "qv-code""#) && blocks.contains(#""node-name": "qv-vars""#), "\(blocks)")
      }
      #expect(status == 0)
    }
  }

  @Test("the firmware begins with the image, whatever other drives there are", arguments: ["virtio-blk", "virtio-scsi", "nvme"])
  @EventLoopActor
  func bootOrder(type: String) async throws {
    try await withTemporaryDirectory { folder in
      // A boot sector that writes a line to the serial port: mov dx, 0x3f8; mov al, letter; out dx, al; mov al, 10; out dx, al; cli; hlt.
      for letter in ["A", "B", "C"] {
        var sector = [UInt8](repeating: 0, count: 1 << 20)
        let code: [UInt8] = [0xBA, 0xF8, 0x03, 0xB0, UInt8(ascii: letter.unicodeScalars.first ?? " "), 0xEE, 0xB0, 10, 0xEE, 0xFA, 0xF4]
        sector.replaceSubrange(0..<code.count, with: code)
        sector.replaceSubrange(510..<512, with: [0x55, 0xAA])
        try Data(sector).write(to: URL(filePath: folder.appending(letter).string))
      }
      let console = folder.appending("console")
      let machine = [
        "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--stop-timeout", "0", "--console", console.string, "--image",
        folder.appending("B").string, "--image-disk-type", type, "--extra-drive=virtio-blk:\(folder.appending("A"))",
        "--extra-drive=nvme:\(folder.appending("C"))",
      ]
      _ = try await withDaemon(machine) { daemon in
        let begun = try await command("timeout", ["60", "sh", "-c", "tail -n +1 -F \(console) 2>/dev/null | grep -qm1 '[ABC]'"])
        #expect(begun.status == 0)
        #expect(contents(of: console).hasPrefix("B\n"))
        #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
      }
    }
  }

  @Test("-S behind -- leaves the guest stopped, with its devices there; a machine of the user's own has them on its bus") @EventLoopActor
  func ownMachine() async throws {
    try await withTemporaryDirectory { folder in
      withExtendedLifetime(try DiskImage(folder.appending("disk"), size: 1 << 20)) {}
      let machine = [
        "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--stop-timeout", "0", "--image", folder.appending("disk").string,
        "--network-user-mode", "--",
      ]
      for own in [["-machine", "pc", "-S"], ["-machine", "q35", "-S"]] {
        _ = try await withDaemon(machine + own) { daemon async throws in
          #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains(#""status":"prelaunch""#))
          #expect(try await daemon.qmp(#"{"execute":"query-block"}"#).contains("/machine/peripheral/vmspawn-0-disk/"))
          #expect(try await daemon.call("io.systemd.MachineInstance.Resume") == "{}")
          #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains(#""status":"running""#))
        }
      }
    }
  }

  @Test("a machine that is to end at a reset starts with its image, and ends at the first reset", arguments: ["-no-reboot", "-action"])
  @EventLoopActor
  func noReboot(option: String) async throws {
    try await withTemporaryDirectory { folder in
      withExtendedLifetime(try DiskImage(folder.appending("disk"), size: 1 << 20)) {}
      let machine = [
        "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--image", folder.appending("disk").string, "--", option,
      ]
      let (_, status) = try await withDaemon(machine + (option == "-action" ? ["reboot=shutdown"] : [])) { daemon async throws in
        #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains(#""status":"running""#))
        let process = try daemon.qemu()
        #expect(try await daemon.call("io.systemd.MachineInstance.Reboot") == "{}")
        let ended = try await command("timeout", ["60", "tail", "--pid=\(process)", "-f", "/dev/null"])
        #expect(ended.status == 0)
      }
      #expect(status == 0)
    }
  }

  @Test("a program of a device that ends before QEMU is told; one that ends with QEMU is not") @EventLoopActor
  func programEnds() async throws {
    let machine = ["run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--tpm=yes", "--stop-timeout", "0"]
    _ = try await withDaemon(machine) { daemon async throws in
      #expect(!daemon.log.contains("goes on without it"))
      let program = try #require(daemon.children.first { contents(of: FilePath("/proc/\($0)/comm")) == "swtpm\n" })
      kill(program, SIGKILL)
      let isTold = Promise<Void>()
      let timer = try EventSource.timer(after: .seconds(60)) { isTold.fulfil() }
      while isTold.result == nil, !daemon.log.contains("swtpm was killed by signal 9, and QEMU goes on without it (--tpm=yes)") {
        try await quiet()
      }
      #expect(isTold.result == nil, "\(daemon.log)")
      withExtendedLifetime(timer) {}
    }
  }

  @Test("swtpm and virtiofsd end with QEMU, also when the daemon is killed; with --keep-running both go on", arguments: [false, true])
  @EventLoopActor
  func programs(keepRunning: Bool) async throws {
    try await withTemporaryDirectory { folder in
      let machine = [
        "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--tpm=yes", "--bind=\(folder)", "--tpm-state=off", "--log-level",
        "debug",
      ]
      let options = machine + (keepRunning ? ["--keep-running"] : [])
      let (children, killed) = try await withDaemon(options, directory: folder) { daemon async throws in
        #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
        let children = daemon.children
        daemon.signal(SIGKILL)
        return children
      }
      #expect(killed == 128 + SIGKILL && children.count == 3)
      if keepRunning {
        let attached = ["attach", "--machine", "test", "--qmp", "unix:\(folder.appending("qmp"))"]
        _ = try await withDaemon(attached, directory: folder) { daemon async throws in
          for process in children { #expect(kill(process, 0) == 0) }
          #expect(try await daemon.call("io.systemd.MachineInstance.Reboot") == "{}")
          #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
          for process in children { #expect(kill(process, 0) == 0) }
          #expect(try await daemon.call("io.systemd.MachineInstance.Terminate") == "{}")
        }
      }
      // They are nobody's children now, so that there is nothing to wait on but their ends.
      for process in children {
        let ended = try await command("timeout", ["60", "tail", "--pid=\(process)", "-f", "/dev/null"])
        #expect(ended.status == 0)
      }
    }
  }

  // MARK: pieces

  /// What a guest writes to a device is in the file.
  @EventLoopActor
  private static func writeThrough(_ guest: Guest, _ device: String, _ file: FilePath) async throws {
    _ = try await guest.run("echo into \(device) | dd of=/dev/\(device) conv=fsync 2>/dev/null")
    #expect(contents(of: file).hasPrefix("into \(device)\n"))
  }

  /// A port of this machine's that nobody listens on.
  private static func freePort() throws -> UInt16 {
    let raw = socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    try #require(raw >= 0)
    defer { close(raw) }
    return try bound(raw, port: 0)
  }

  /// Binds a socket on the loopback address, and gives its port.
  static func bound(_ raw: CInt, port: UInt16) throws -> UInt16 {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    address.sin_port = port.bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let named = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(raw, $0, length) == 0 && getsockname(raw, $0, &length) == 0 }
    }
    try #require(named)
    return UInt16(bigEndian: address.sin_port)
  }

  /// What comes from a port of this machine's.
  private static func read(port: UInt16) async throws -> String {
    try await command("timeout", ["60", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/\(port); cat <&3"]).output
  }
}
