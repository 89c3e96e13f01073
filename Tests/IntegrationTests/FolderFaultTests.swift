import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// A folder that is full or cannot be written, while a machine runs.
@Suite("no room for a monitor's socket", .onEventLoop) struct FolderFaultTests {
  @Test(
    "the caller has the reason, and nothing is left in QEMU",
    arguments: [("-o nr_inodes=1", "ENOSPC"), ("-o ro", "EROFS")])
  @EventLoopActor
  func monitor(mount: String, errno: String) async throws {
    try await withTemporaryDirectory { folder in
      let launcher = [
        "unshare", "--mount", "--propagation", "private", "sh", "-c", "mount -t tmpfs \(mount) none \(folder) && exec \"$0\" \"$@\"",
      ]
      let (_, status) = try await withDaemon(bareMachine, launcher: launcher) { daemon in
        let monitors = MonitorsClient(daemon: daemon)
        for _ in 0..<3 {
          let reply = try await known { try await monitors.listen("m", at: folder.appending("m")) }
          #expect(reply.contains(#""errnoName":"\#(errno)""#), "\(reply)")
        }
        #expect(try await !monitors.call("List").contains(#""id":"m""#))
        #expect(try await monitors.listen("m") == "{}")
      }
      #expect(status == 0)
    }
  }
}
