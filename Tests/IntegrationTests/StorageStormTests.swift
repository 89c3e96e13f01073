import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// Drives that come and go all the time, four at once, with a guest that takes part.
@Suite("storage that comes and goes", .onEventLoop, .serialized)
struct StorageStormTests {
  private static let configs = ["virtio-blk", "virtio-scsi", "nvme", "scsi-cd"]

  /// What must be the same before and after.
  private struct Left: Equatable {
    var descriptors: [Int]
    var sets: String
    var nodes: Int
    var devices: Int
  }

  @EventLoopActor
  private static func left(_ daemon: RunningDaemon) async throws -> Left {
    let sets = try await daemon.qmp(#"{"execute":"query-fdsets"}"#)
    let nodes = try await daemon.qmp(#"{"execute":"query-named-block-nodes","arguments":{"flat":true}}"#)
    let devices = try await daemon.qmp(#"{"execute":"qom-list","arguments":{"path":"/machine/peripheral"}}"#)
    try await StormTests.quiet(daemon)
    return Left(
      descriptors: try await daemon.settledDescriptorCounts(), sets: sets, nodes: nodes.components(separatedBy: "node-name").count - 1,
      devices: devices.components(separatedBy: #""name""#).count - 1)
  }

  /// Adds, replaces now and then, and removes a drive of one config, so many times.
  @EventLoopActor
  private static func rounds(_ count: Int, _ config: String, _ daemon: RunningDaemon, _ folder: FilePath) async throws {
    let image = try DiskImage(folder.appending("\(config)-a"), size: 1 << 20)
    let other = try DiskImage(folder.appending("\(config)-b"), size: 2 << 20)
    for round in 0..<count {
      var reply = ""
      // The guest lets go of the one before when it likes.
      repeat { reply = try await daemon.addStorage(config, config, image) } while reply.contains("StorageExists")
      #expect(reply == "{}")
      if round.isMultiple(of: 5) { #expect(try await daemon.replaceStorage(config, other) == "{}") }
      #expect(try await daemon.removeStorage(config) == "{}")
    }
    while try await !daemon.removeStorage(config).contains("NoSuchStorage") {}
  }

  @EventLoopActor
  private static func all(_ count: Int, _ daemon: RunningDaemon, _ folder: FilePath) async throws {
    let workers = configs.map { config in
      Task(executorPreference: EventLoop.shared) { try await Self.rounds(count / configs.count, config, daemon, folder) }
    }
    for worker in workers { try await worker.value }
  }

  @Test("four at once, each kind of drive: descriptors, sets, nodes, devices and memory are flat") @EventLoopActor
  func storm() async throws {
    try await withTemporaryDirectory { folder in
      try await Guest.make(in: folder)
      // All of the guest's memory from the start, so that QEMU's own can be seen.
      let (_, status) = try await withDaemon(Guest.arguments(in: folder, ["-mem-prealloc"])) { daemon in
        let guest = try await Guest.boot(in: folder)
        let qemu = try daemon.qemu()
        let memory = { [daemon.process, qemu].map { RunningDaemon.status(of: $0, "VmRSS") } }
        // What is made once, on first use, is there before the count.
        try await Self.all(8, daemon, folder)
        let before = try await Self.left(daemon)
        let memoryBefore = memory()
        let start = ContinuousClock.now
        try await Self.all(Campaign.storageRounds, daemon, folder)
        let duration = ContinuousClock.now - start
        let after = try await Self.left(daemon)
        #expect(after == before)
        #expect(!daemon.log.contains("is left"), "\(daemon.log)")
        let growth = zip(memory(), memoryBefore).map { $0 - $1 }
        print("\(Campaign.storageRounds) drives in \(duration), memory grew by \(growth) KiB (daemon, QEMU); \(before)")
        #expect(growth[0] < 2048 && growth[1] < 32768)
        // SCSI drives go without the guest, which learns of it later.
        #expect(try await guest.run("for n in $(seq 100); do ls /sys/block | grep -q . || break; sleep 0.1; done; ls /sys/block") == "")
        #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("\"running\":true"))
      }
      #expect(status == 0)
    }
  }
}
