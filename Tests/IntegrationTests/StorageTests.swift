import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("storage of a booted guest", .onEventLoop, .serialized)
struct StorageTests {
  @Test("the guest sees a disk and its size, the new contents of a replaced one, and its end; then it powers off") @EventLoopActor
  func seenByTheGuest() async throws {
    try await withTemporaryDirectory { folder in
      try await Guest.make(in: folder)
      let (_, status) = try await withDaemon(Guest.arguments(in: folder)) { daemon in
        let guest = try await Guest.boot(in: folder)
        // From now on the kernel tells on the console what it finds.
        _ = try await guest.run("dmesg -n 8")
        let subscriber = try daemon.connect()
        _ = try await subscriber.call(
          "io.systemd.MachineInstance.SubscribeEvents", #"{"filter":["DEVICE_DELETED"]}"#, flags: #","more":true"#)

        for (config, device, canResize) in [
          ("virtio-blk", "vda", true), ("virtio-scsi", "sda", true), ("nvme", "nvme0n1", false), ("scsi-cd", "sr0", false),
        ] {
          let first = try DiskImage(folder.appending("\(config)-1"), size: 3 << 20, contents: "first \(config)")
          let second = try DiskImage(folder.appending("\(config)-2"), size: 5 << 20, contents: "second \(config)")
          #expect(try await daemon.addStorage(config, config, first) == "{}")
          // The kernel's own words where it has any; they are there when the disk is.
          if config == "virtio-blk" || config == "virtio-scsi" {
            try await guest.console.wait(for: "[\(device)] 6144 512-byte logical blocks")
          }
          _ = try await guest.run("until head -c 1 /dev/\(device) >/dev/null 2>&1; do :; done")
          #expect(try await guest.run("cat /sys/block/\(device)/size") == "6144\n")
          #expect(try await guest.run("head -c \("first \(config)".utf8.count) /dev/\(device); echo") == "first \(config)\n")
          #expect(try await guest.run("cat /sys/block/\(device)/ro") == (config == "scsi-cd" ? "1\n" : "0\n"))

          #expect(try await daemon.replaceStorage(config, second) == "{}")
          if config != "scsi-cd" {
            let read = "dd if=/dev/\(device) bs=4096 count=1 iflag=direct 2>/dev/null | head -c \("second \(config)".utf8.count); echo"
            #expect(try await guest.run(read) == "second \(config)\n")
            _ = try await guest.run("echo 3 >/proc/sys/vm/drop_caches; echo from the guest | dd of=/dev/\(device) conv=fsync 2>/dev/null")
            #expect(contents(of: folder.appending("\(config)-2")).hasPrefix("from the guest\n"))
            #expect(contents(of: folder.appending("\(config)-1")).hasPrefix("first"))
          }
          if canResize {
            #expect(try await guest.run("until grep -q 10240 /sys/block/\(device)/size; do :; done; echo grown") == "grown\n")
          }

          #expect(try await daemon.removeStorage(config) == "{}")
          while try await !subscriber.receive().contains(#""device":"qv-d"#) {}
          #expect(try await guest.run("until [ ! -e /sys/block/\(device) ]; do :; done; echo gone") == "gone\n")
        }
        #expect(try await daemon.qmp(#"{"execute":"query-fdsets"}"#) == #"{"return": []}"#)
        #expect(try await daemon.qmp(#"{"execute":"query-named-block-nodes"}"#) == #"{"return": []}"#)

        // A caller that does not wait for the reply gets what it asked for.
        let hasty = try daemon.connect()
        let image = try DiskImage(folder.appending("hasty"), size: 1 << 20)
        try await hasty.send(
          "io.systemd.MachineInstance.AddStorage", #"{"fileDescriptorIndex":0,"name":"hasty"}"#, descriptors: [image.descriptor.raw])
        hasty.peer.close()
        try await guest.console.wait(for: "[vda] 2048 512-byte logical blocks")

        let all = try daemon.connect()
        _ = try await all.call("io.systemd.MachineInstance.SubscribeEvents", flags: #","more":true"#)
        #expect(try await daemon.call("io.systemd.MachineInstance.PowerOff") == "{}")
        try await guest.console.wait(for: "guest: power button pressed")
        try await all.peer.waitForEnd()
        #expect(all.peer.text.contains(#""event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}"#))
      }
      #expect(status == 0)
    }
  }

  @Test("a machine that has no ports for hotplug says so; drives of the command line stay") @EventLoopActor
  func immutable() async throws {
    try await withTemporaryDirectory { folder in
      let boot = try DiskImage(folder.appending("boot"), size: 1 << 20)
      let other = try DiskImage(folder.appending("other"), size: 1 << 20)
      let machine = ["run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--stop-timeout", "0"]
      _ = try await withDaemon(machine + ["--image", folder.appending("boot").string]) { daemon in
        for name in ["vmspawn-0-disk"] {
          #expect(try await daemon.removeStorage(name) == #"{"error":"io.systemd.MachineInstance.StorageImmutable"}"#)
          #expect(try await daemon.replaceStorage(name, other) == #"{"error":"io.systemd.MachineInstance.StorageImmutable"}"#)
          #expect(try await daemon.addStorage(name, "", other) == #"{"error":"io.systemd.MachineInstance.StorageExists"}"#)
        }
        // No guest runs that would let go of any.
        for number in 0..<10 {
          let image = try DiskImage(folder.appending("full-\(number)"), size: 1 << 20)
          #expect(try await daemon.addStorage("\(number)", ["virtio-blk", "nvme", "virtio-scsi"][number % 3], image) == "{}")
        }
        // Three ports are free still: all SCSI drives are on one controller.
        for number in 0..<2 {
          let image = try DiskImage(folder.appending("last-\(number)"), size: 1 << 20)
          #expect(try await daemon.addStorage("last-\(number)", "virtio-blk", image) == "{}")
        }
        let full = try await daemon.addStorage("one too many", "nvme", other)
        #expect(full.contains(#""errno":28,"errnoName":"ENOSPC","desc":"all 10 PCIe ports for hotplug are taken""#), "\(full)")
        #expect(try await daemon.addStorage("still room", "virtio-scsi", other) == "{}")
      }
      withExtendedLifetime(boot.descriptor.raw) {}
      _ = try await withDaemon(bareMachine) { daemon in
        let reply = try await daemon.addStorage("a", "virtio-scsi", other)
        #expect(
          reply
            == #"{"error":"io.systemd.MachineInstance.ConfigNotSupported","parameters":{"reason":"the machine has no PCIe ports for hotplug"}}"#
        )
      }
    }
  }
}
