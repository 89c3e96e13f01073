import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// A QEMU that does not answer, or not as it should. What becomes of callers when it is killed is in `LifecycleTests`.
@Suite("QEMU is slow, stuck, or gone in part", .onEventLoop, .serialized) struct QEMUFaultTests {
  private static let limit = Duration.seconds(1)
  private static let options = ["--response-limit", "1"]

  @Test("stuck in a command: typed calls are told after the limit, sessions wait, and all goes on afterwards", arguments: Backend.allCases)
  @EventLoopActor
  func wedged(backend: Backend) async throws {
    try await withTemporaryDirectory { folder in
      try await backend.withDaemon(Self.options) { daemon in
        let session = try await daemon.acquireQMP()
        try await session.write(#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#)
        try await session.wait(for: #"{"return": {}}"#)
        let blocking = try await daemon.acquireQMP()
        try await blocking.write(#"{"execute":"qmp_capabilities"}"#)
        try await blocking.wait(for: #"{"return": {}}"#)
        try await backend.withBlockingCommand(id: "blocker", in: folder) { command, unblock in
          try await blocking.write(command)
          // It is executed once those behind it are not.
          while try await !daemon.call("io.systemd.MachineInstance.Describe").contains("unresponsive") {}
          for method in ["Pause", "PowerOff", "Terminate"] {
            let reply = try await known(within: Self.limit) { try await daemon.call("io.systemd.MachineInstance.\(method)") }
            #expect(reply.hasPrefix(#"{"error":"io.systemd.QemuMachineInstance.NotResponding""#), "\(reply)")
          }
          try await session.write(#"{"execute":"query-name","id":"behind"}"#)
          try await unblock(session)
        }
        try await session.wait(for: #""id": "behind"}"#)
        try await blocking.wait(for: #""id": "blocker""#)
        while try await daemon.call("io.systemd.MachineInstance.Describe").contains("unresponsive") {}
        #expect(try await daemon.call("io.systemd.MachineInstance.Pause") == "{}")
      }
    }
  }

  @Test("slow, but within the limit: callers wait for it, and have their replies") @EventLoopActor
  func slow() async throws {
    let patient = ["run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--response-limit", "60", "--", "-machine", "none"]
    _ = try await withDaemon(patient) { daemon in
      let qemu = try daemon.qemu()
      let caller = try daemon.connect()
      kill(qemu, SIGSTOP)
      try await caller.send("io.systemd.MachineInstance.Describe")
      // What is tried is that time passes.
      _ = await Promise<Void>().value(within: .seconds(1))
      #expect(caller.peer.received.isEmpty)
      kill(qemu, SIGCONT)
      let reply = try await known(within: .seconds(60)) { try await caller.receive() }
      #expect(reply.contains("running"))
      #expect(!daemon.log.contains("has not answered"))
    }
  }

  @Test("it closes the monitor of a daemon that attached: callers learn, the daemon ends with status 69, and QEMU goes on") @EventLoopActor
  func closesMonitor() async throws {
    // Some time after the start, in which there are fewer commands.
    _ = try await withSimulator(["--fault", "close@60"]) { simulator in
      let (_, status) = try await withDaemon(["attach", "--machine", "test", "--qmp", "unix:\(simulator.path)"]) { daemon in
        let subscriber = try daemon.connect()
        _ = try await subscriber.call("io.systemd.MachineInstance.SubscribeEvents", flags: #","more":true"#)
        let caller = try daemon.connect()
        var reply = ""
        repeat {
          reply = try await known { try await caller.call("io.systemd.MachineInstance.Describe") }
        } while reply.contains("running")
        #expect(reply.hasPrefix(#"{"error":"io.systemd.MachineInstance.NotConnected""#), "\(reply)")
        try await subscriber.peer.waitForEnd()
      }
      #expect(status == 69)
      try await simulator.connect().wait(for: "QMP")
    }
  }

  @Test("it closes the control monitor of a daemon that has sessions: the spare one takes its place, calls go on") @EventLoopActor
  func closesControlMonitor() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"}"#)
      try await session.wait(for: #"{"return": {}}"#)
      let yank = #"{"execute":"yank","arguments":{"instances":[{"type":"chardev","id":"qv-control"}]},"id":"yank"}"#
      try await session.write(yank)
      try await session.wait(for: #""id": "yank""#)
      try await known { while try await !daemon.call("io.systemd.MachineInstance.Describe").contains("running") {} }
      #expect(try await daemon.call("io.systemd.MachineInstance.Pause") == "{}")
      try await session.wait(for: #""event": "STOP""#)
      #expect(daemon.log.contains("the spare one takes its place"))
    }
  }

  @Test("stopped together with the daemon, as in a suspended system: calls and sessions go on where they were") @EventLoopActor
  func suspended() async throws {
    _ = try await withDaemon(["run"] + Self.options + bareMachine.dropFirst()) { daemon in
      let qemu = try daemon.qemu()
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"}"#)
      try await session.wait(for: #"{"return": {}}"#)
      let subscriber = try daemon.connect()
      _ = try await subscriber.call("io.systemd.MachineInstance.SubscribeEvents", flags: #","more":true"#)
      let caller = try daemon.connect()
      for round in 0..<3 {
        // A call of which the daemon may have heard, and one of which it cannot.
        try await caller.send("io.systemd.MachineInstance.Describe")
        daemon.signal(SIGSTOP)
        kill(qemu, SIGSTOP)
        let other = try daemon.connect()
        try await other.send("io.systemd.MachineInstance.Pause")
        try await session.write(#"{"execute":"query-name","id":"\#(round)"}"#)
        // For longer than QEMU may take: that it is over for both is what is tried.
        _ = await Promise<Void>().value(within: .seconds(2))
        kill(qemu, SIGCONT)
        daemon.signal(SIGCONT)
        try await known {
          let described = try await caller.receive()
          #expect(described.contains("running") || described.contains("paused"), "\(described)")
          #expect(try await other.receive() == "{}")
          try await session.wait(for: #""id": "\#(round)"}"#)
        }
        #expect(try await subscriber.receive().contains("STOP"))
        #expect(try await daemon.call("io.systemd.MachineInstance.Resume") == "{}")
        #expect(try await subscriber.receive().contains("RESUME"))
      }
    }
  }
}
