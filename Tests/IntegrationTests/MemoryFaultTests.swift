import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// A daemon that gets no more memory while it serves.
@Suite("out of memory", .onEventLoop, .serialized) struct MemoryFaultTests {
  /// Allows a process so much more address space.
  @EventLoopActor
  private static func limit(_ process: Int32, more: Int?) async throws {
    let limit = more.map { "\(RunningDaemon.status(of: process, "VmSize") << 10 + $0)" } ?? "unlimited"
    let result = try await command("prlimit", ["--pid", "\(process)", "--as=\(limit):"])
    guard result.status == 0 else { throw RunningDaemon.Failure(result.error) }
  }

  @Test("a message that there is no memory for ends its connection; the others go on") @EventLoopActor
  func message() async throws {
    let (_, status) = try await withDaemon(bareMachine) { daemon in
      let early = try daemon.connect()
      _ = try await early.call("io.systemd.MachineInstance.Describe")
      try await Self.limit(daemon.process, more: 1 << 20)
      let large = try daemon.connect()
      try await known {
        // The connection may end before all of it was written.
        let text = #"{"method":"io.systemd.MachineInstance.Describe","parameters":{"x":""# + String(repeating: "x", count: 12 << 20)
        try? await large.peer.write(Array(text.utf8))
        try await large.peer.waitForEnd()
      }
      try await Self.limit(daemon.process, more: nil)
      #expect(try await early.call("io.systemd.MachineInstance.Describe").contains("running"))
    }
    #expect(status == 0)
  }

  @Test("a daemon that has none for its own work dies as if killed: callers have their end, and QEMU ends with it") @EventLoopActor
  func death() async throws {
    try await withTemporaryDirectory { folder in
      let qmp = folder.appending("qmp")
      let (direct, status) = try await withDaemon(bareMachine + ["-qmp", "unix:\(qmp),server=on,wait=off"]) { daemon in
        let direct = try Peer(.connected(to: qmp))
        try await direct.wait(for: "QMP")
        let other = try daemon.connect()
        _ = try await other.call("io.systemd.MachineInstance.Describe")
        let session = try await daemon.acquireQMP()
        try await session.write(#"{"execute":"qmp_capabilities"}"#)
        try await session.wait(for: #"{"return": {}}"#)
        try await Self.limit(daemon.process, more: 0)
        session.reads = false
        try await known {
          // Replies that nobody reads are kept, up to --unread-limit.
          for _ in 0..<200 where (try? await session.write(#"{"execute":"query-qmp-schema"}"#)) == nil { break }
          try await other.peer.waitForEnd()
        }
        return direct
      }
      #expect(status > 128, "\(status)")
      try await direct.waitForEnd()
    }
  }
}
