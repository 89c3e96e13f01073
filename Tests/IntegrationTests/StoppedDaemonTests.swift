import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// A daemon that stands still for a while. What becomes of callers when it is killed is in `LifecycleTests` and `DaemonKilledTests`.
@Suite("the daemon is stopped, and goes on", .onEventLoop) struct StoppedDaemonTests {
  @Test("callers wait, connections queue, the machine goes on; then everybody has what they asked for, events included") @EventLoopActor
  func stopped() async throws {
    try await withTemporaryDirectory { folder in
      let qmp = folder.appending("qmp")
      _ = try await withDaemon(bareMachine + ["-qmp", "unix:\(qmp),server=on,wait=off"]) { daemon in
        let direct = try Peer(.connected(to: qmp))
        try await direct.write(#"{"execute":"qmp_capabilities"}"#)
        try await direct.wait(for: #"{"return": {}}"#)
        let subscriber = try daemon.connect()
        _ = try await subscriber.call("io.systemd.MachineInstance.SubscribeEvents", flags: #","more":true"#)
        let session = try await daemon.acquireQMP()
        daemon.signal(SIGSTOP)
        let callers = try (0..<20).map { _ in try daemon.connect() }
        for caller in callers { try await caller.send("io.systemd.MachineInstance.Describe") }
        try await session.write(#"{"execute":"qmp_capabilities","id":"late"}"#)
        // The machine needs no daemon.
        try await direct.write(#"{"execute":"stop"}{"execute":"cont","id":"on"}"#)
        try await direct.wait(for: #""id": "on"}"#)
        #expect(callers.allSatisfy { $0.peer.received.isEmpty })
        daemon.signal(SIGCONT)
        try await known {
          for caller in callers { #expect(try await caller.receive().contains("running")) }
          try await session.wait(for: #""id": "late"}"#)
        }
        #expect(try await subscriber.receive().contains("STOP"))
        #expect(try await subscriber.receive().contains("RESUME"))
      }
    }
  }
}
