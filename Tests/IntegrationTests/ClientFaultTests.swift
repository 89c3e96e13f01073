import Glibc
import Subprocess
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// Clients that are processes of their own, and what becomes of the others when these are stopped or killed.
@Suite("clients that are stopped, killed, or talk nonsense", .onEventLoop, .serialized) struct ClientFaultTests {
  /// Runs `body` with a client that has a session, asks for more than it will read, and has been stopped in the middle of that.
  @EventLoopActor
  private static func withClient(_ daemon: RunningDaemon, _ body: @escaping @EventLoopActor (Int32) async throws -> Void) async throws {
    // Asks without end and reads nothing, as a client does that has been stopped; says so once it has a session.
    let client = """
      import socket, sys
      peer = socket.socket(socket.AF_UNIX)
      peer.connect(sys.argv[1])
      peer.sendall(b'{"method":"io.systemd.QemuMachineInstance.AcquireQMP","upgrade":true}' + bytes(1))
      while bytes(1) not in peer.recv(1, socket.MSG_PEEK): peer.recv(1)
      peer.sendall(b'{"execute":"qmp_capabilities"}')
      peer.sendall(b'{"execute":"query-commands"}' * 3000)
      print("has a session", flush=True)
      while True: peer.sendall(b'{"execute":"query-commands"}')
      """
    let pair = try pipePair()
    let output = try Peer(OwnedDescriptor(owning: pair.reading))
    let writing = FileDescriptor(rawValue: pair.writing)
    _ = try await run(
      .name("python3"), arguments: ["-c", client, daemon.socket.string], input: .none,
      output: .fileDescriptor(writing, closeAfterSpawningProcess: true), error: .discarded
    ) { execution in
      let process = execution.processIdentifier.value
      defer { kill(process, SIGKILL) }
      try await Self.settle(output)
      try await body(process)
    }
  }

  @EventLoopActor
  private static func settle(_ output: Peer) async throws { try await output.wait(for: "has a session") }

  private static let machine = [
    "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--unread-limit", "4", "--", "-machine", "none",
  ]

  @Test("one that is stopped: its session ends at --unread-limit, and the others' calls are answered meanwhile") @EventLoopActor
  func stopped() async throws {
    _ = try await withDaemon(Self.machine) { daemon in
      try await Self.withClient(daemon) { client in
        kill(client, SIGSTOP)
        let caller = try daemon.connect()
        repeat {
          let reply = try await known { try await caller.call("io.systemd.MachineInstance.Describe") }
          #expect(reply.contains("running"))
        } while try await caller.call("io.qmpvarlink.Sessions.List").contains(#""id":"qv-"#)
          && !daemon.log.contains("the client left more than")
      }
      try await StormTests.quiet(daemon)
    }
  }

  @Test("one that is killed in the middle of a flood: its session goes, with its monitor") @EventLoopActor
  func killed() async throws {
    _ = try await withDaemon(Self.machine) { daemon in
      try await Self.withClient(daemon) { client in
        kill(client, SIGKILL)
        let caller = try daemon.connect()
        let reply = try await known { try await caller.call("io.systemd.MachineInstance.Describe") }
        #expect(reply.contains("running"))
        // QEMU executes what it has been sent before the monitor can be removed.
        while try await caller.call("io.qmpvarlink.Sessions.List").contains(#""id":"qv-"#) {}
      }
      try await StormTests.quiet(daemon)
    }
  }

  @Test(
    "one that talks nonsense to the control socket has an error or its end, and nobody else notices",
    arguments: [
      "GET / HTTP/1.1\r\n\r\n\0", "\u{FF}\u{FE}\0", "{}\0", #"{"method":7}"# + "\0",
      #"{"method":"io.systemd.MachineInstance.Describe""# + "\0",
      String(repeating: "[", count: 100_000) + "\0", String(repeating: "x", count: 17 << 20), "\0\0\0\0", #"{"execute":"quit"}"# + "\0",
    ])
  @EventLoopActor
  func garbage(text: String) async throws {
    let (_, status) = try await withDaemon(bareMachine) { daemon in
      let other = try daemon.connect()
      let client = try daemon.connect()
      try await known {
        // What is not even a beginning may be refused before all of it is written.
        try? await client.peer.write(text)
        try await client.peer.wait("an error or the end") { $0.hasEnded || $0.received.contains(0) }
      }
      if !client.peer.received.isEmpty { #expect(client.peer.text.contains("\"error\""), "\(client.peer.text)") }
      #expect(try await other.call("io.systemd.MachineInstance.Describe").contains("running"))
    }
    #expect(status == 0)
  }

  @Test("one that half-closes in the middle of a call has the reply, and then its end") @EventLoopActor
  func halfClosed() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let client = try daemon.connect()
      try await client.send("io.systemd.MachineInstance.Describe")
      client.peer.endWriting()
      try await known {
        #expect(try await client.receive().contains("running"))
        try await client.peer.waitForEnd()
      }
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
    }
  }
}
