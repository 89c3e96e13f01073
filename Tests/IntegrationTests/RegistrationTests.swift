import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing
import Varlink

/// The daemon beside a systemd-machined that is a stand-in, or missing. What the real one makes of it is in `MachinectlTests`.
@Suite("registration with systemd-machined", .onEventLoop)
struct RegistrationTests {
  @Test("auto, without a machined: the machine starts, and one line says so", arguments: ["--system", "--user"]) @EventLoopActor
  func autoWithout(scope: String) async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let (_, status) = try await withDaemon(host.machine(["--register=auto", scope]), launcher: host.launcher) { daemon in
        #expect(daemon.log.split(separator: "\n").filter { $0.contains("machined") }.count == 1, "\(daemon.log)")
        #expect(daemon.log.contains("not registered with systemd-machined, which does not run"))
      }
      #expect(status == 0)
    }
  }

  @Test("yes, without a machined: the daemon fails, says what to do, and leaves no QEMU") @EventLoopActor
  func yesWithout() async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let pid = folder.appending("pid")
      let result = try await known { try await host.daemon(["--register=yes"], qemu: ["-pidfile", pid.string]) }
      #expect(result.status == 70)
      #expect(result.error.contains("could not register machine 'test' with systemd-machined (system: No such file or directory)"))
      #expect(result.error.contains("systemctl start systemd-machined.socket"), "\(result.error)")
      #expect(!FilePath.exists(pid))
    }
  }

  @Test("yes, for a user of whom nobody knows where machined would be: the message names the variable") @EventLoopActor
  func nowhere() async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let result = try await host.daemon(["--register=yes", "--user"], wrapper: ["env", "--unset=XDG_RUNTIME_DIR"])
      #expect(result.status == 70)
      #expect(result.error.contains("user: XDG_RUNTIME_DIR, which leads to it, is not set"), "\(result.error)")
    }
  }

  @Test("no: nobody is asked") @EventLoopActor
  func no() async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let machined = try StandIn(at: host.system)
      _ = try await withDaemon(host.machine(["--register=no"]), launcher: host.launcher) { _ in }
      #expect(machined.calls == [])
    }
  }

  @Test("READY comes after the reply, the name is taken back at the end, and that machined has forgotten it is nobody's business")
  @EventLoopActor
  func fields() async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let machined = try StandIn(at: host.system)
      machined.onUnregister = { throw VarlinkError("io.systemd.Machine.NoSuchMachine") }
      let control = Promise<FilePath>()
      let leader = Promise<Int32>()
      let log = Promise<String>()
      let (_, status) = try await withDaemon(host.machine(["--register=yes"]), launcher: host.launcher) { daemon in
        #expect(machined.registered.count == 1)
        control.fulfil(daemon.socket)
        leader.fulfil(try daemon.qemu())
        let qemu = try daemon.qemu()
        #expect(daemon.notified.first?.hasSuffix("\nX_VMSPAWN_LEADER_PID=\(qemu)") == true, "\(daemon.notified)")
        #expect(!daemon.notified.contains { $0.contains("MAINPID") })
        // A machine that starts over stays registered.
        #expect(try await daemon.call("io.systemd.MachineInstance.Reboot") == "{}")
        #expect(try await daemon.call("io.systemd.MachineInstance.Terminate") == "{}")
        try await machined.unregistration.soon()
        log.fulfil(daemon.log)
      }
      #expect(status == 0)
      #expect(machined.calls == ["Register", "Unregister"])
      let parameters = try #require(machined.registered.first)
      #expect(
        parameters.members?.map(\.name) == ["name", "service", "class", "controlAddress", "allocateUnit", "leaderProcessId"],
        "\(parameters)")
      #expect(parameters["name"]?.string == "test" && parameters["class"]?.string == "vm")
      #expect(parameters["service"]?.string == "qmp-varlinkd" && parameters["allocateUnit"]?.boolean == true)
      #expect(parameters["controlAddress"]?.string == control.result?.string)
      #expect(parameters["leaderProcessId"]?["pid"]?.integer == leader.result.map(Int64.init))
      #expect(machined.unregistered.map(\.text) == [#"{"name":"test"}"#])
      #expect(log.result?.contains("forgotten") == false)
    }
  }

  @Test("a user's machine is registered with the system's machined and with the user's, which may make a scope") @EventLoopActor
  func userScope() async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let system = try StandIn(at: host.system)
      let user = try StandIn(at: host.user)
      _ = try await withDaemon(host.machine(["--register=yes", "--user"]), launcher: host.launcher) { daemon in
        #expect(daemon.log.contains("registered with systemd-machined (system and user)"))
      }
      #expect(system.registered.first?["allocateUnit"] == nil && user.registered.first?["allocateUnit"]?.boolean == true)
      #expect(system.calls == ["Register", "Unregister"] && user.calls == ["Register", "Unregister"])
    }
  }

  @Test("one of two that refuses: yes takes the other registration back, auto keeps it", arguments: ["yes", "auto"]) @EventLoopActor
  func half(policy: String) async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let system = try StandIn(at: host.system)
      system.onRegister = { _ in throw VarlinkError("org.varlink.service.PermissionDenied") }
      let user = try StandIn(at: host.user)
      if policy == "yes" {
        let result = try await host.daemon(["--register=yes", "--user"])
        #expect(result.status == 70 && result.error.contains("(system: org.varlink.service.PermissionDenied)"), "\(result.error)")
      } else {
        _ = try await withDaemon(host.machine(["--register=auto", "--user"]), launcher: host.launcher) { daemon in
          #expect(daemon.log.contains("registered with systemd-machined (user)"))
          #expect(daemon.log.contains("going on without (system: org.varlink.service.PermissionDenied)"), "\(daemon.log)")
        }
      }
      #expect(user.calls == ["Register", "Unregister"] && system.calls == ["Register"])
    }
  }

  @Test("the daemon stops while machined does not answer, with status 0 and without READY") @EventLoopActor
  func stopMeanwhile() async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let machined = try StandIn(at: host.system)
      machined.onRegister = { process in
        if let process { kill(process, SIGTERM) }
        await Promise<Void>().value
      }
      let notified = try NotifySocket(at: folder.appending("notify"))
      let result = try await host.daemon(
        ["--register=yes", "--stop-timeout", "0"], environment: ["NOTIFY_SOCKET": notified.path.string])
      #expect(result.status == 0, "\(result.error)")
      #expect(!notified.messages.contains { $0.contains("READY=1") } && notified.messages.contains { $0.contains("STOPPING=1") })
      // It cannot be known what became of the call; who has the name must not be hurt by that.
      #expect(machined.calls == ["Register", "Unregister"])
      #expect(machined.unregistered.first?["pid"] == machined.registered.first?["leaderProcessId"])
    }
  }

  @Test("a machined that does not answer: calls are served at once; then auto goes on, and yes fails") @EventLoopActor
  func silence() async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let machined = try StandIn(at: host.system)
      machined.onRegister = { _ in await Promise<Void>().value }
      machined.onUnregister = { await Promise<Void>().value }
      let runtime = folder.appending("failing")
      let failing = Promise<CommandResult?>()
      startTask {
        failing.fulfil(try? await host.daemon(["--register=yes"], runtime: runtime))
      }
      try await machined.registration.soon()
      // Long before it is ready.
      let early = VarlinkPeer(try Peer(.connected(to: runtime.appending("control"))))
      #expect(try await early.call("io.systemd.MachineInstance.Describe").contains("running"))
      #expect(failing.result == nil)
      let (_, status) = try await known(within: .seconds(10)) {
        try await withDaemon(host.machine(["--register=auto"]), launcher: host.launcher) { daemon in
          #expect(daemon.log.contains("going on without (system: the service did not answer in time)"), "\(daemon.log)")
        }
      }
      #expect(status == 0)
      let failed = try #require(try await failing.soon())
      #expect(failed.status == 70 && failed.error.contains("(system: the service did not answer in time)"), "\(failed.error)")
    }
  }

  @Test("a machined that goes while the machine runs: nobody notices, and the machine's end does not wait for it") @EventLoopActor
  func goneLater() async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let machined = try StandIn(at: host.system)
      let (log, status) = try await withDaemon(host.machine(["--register=yes"]), launcher: host.launcher) { daemon in
        #expect(machined.calls == ["Register"])
        machined.stop()
        #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
        let session = try await daemon.acquireQMP()
        try await known {
          #expect(try await daemon.call("io.systemd.MachineInstance.Terminate") == "{}")
          try await session.waitForEnd()
        }
        while !daemon.log.contains("could not unregister from systemd-machined (system)") { try await quiet() }
        return daemon.log
      }
      #expect(status == 0, "\(log)")
      #expect(machined.calls == ["Register"])
    }
  }

  @Test("the leader of a QEMU that was attached to is that QEMU, which stays in its unit and goes on") @EventLoopActor
  func attached() async throws {
    try await withTemporaryDirectory { folder in
      let host = try Host(folder)
      let machined = try StandIn(at: host.system)
      let socket = folder.appending("qmp")
      _ = try await withDaemon(bareMachine + ["-qmp", "unix:\(socket),server=on,wait=off"]) { owner in
        let attach = ["attach", "--machine", "again", "--qmp", "unix:\(socket)", "--register=yes"]
        let qemu = try owner.qemu()
        let (_, status) = try await withDaemon(attach, launcher: host.launcher) { daemon in
          #expect(daemon.notified.first?.hasSuffix("\nX_VMSPAWN_LEADER_PID=\(qemu)") == true)
        }
        #expect(status == 0)
        let parameters = try #require(machined.registered.first)
        #expect(parameters["leaderProcessId"]?["pid"]?.integer == Int64(qemu))
        #expect(parameters["allocateUnit"] == nil)
        #expect(machined.calls == ["Register", "Unregister"])
        #expect(try await owner.call("io.systemd.MachineInstance.Describe").contains("running"))
      }
    }
  }
}

/// A place where `/run` and XDG_RUNTIME_DIR are the test's own.
private struct Host {
  let run: FilePath
  var system: FilePath { run.appending("systemd/machine/io.systemd.Machine") }
  var user: FilePath { run.appending("user/systemd/machine/io.systemd.Machine") }

  init(_ folder: FilePath) throws {
    run = folder.appending("run")
    for path in ["", "systemd", "systemd/machine", "user", "user/systemd", "user/systemd/machine"] {
      guard mkdir(run.pushing(FilePath(path)).string, 0o755) == 0 else { throw SystemdError.last("mkdir") }
    }
  }

  /// What a command begins with that runs there.
  var launcher: [String] {
    let rights = getuid() == 0 ? [] : ["--map-root-user"]
    return ["unshare"] + rights
      + ["--mount", "--propagation", "private", "sh", "-c", "mount --bind \(run) /run && XDG_RUNTIME_DIR=/run/user exec \"$@\"", "sh"]
  }

  func machine(_ options: [String]) -> [String] {
    let separator = bareMachine.firstIndex(of: "--") ?? bareMachine.endIndex
    return bareMachine[..<separator] + options + bareMachine[separator...]
  }

  /// Runs a daemon there until it ends by itself.
  @EventLoopActor
  func daemon(
    _ options: [String], qemu: [String] = [], runtime: FilePath? = nil, wrapper: [String] = [], environment: [String: String] = [:]
  ) async throws -> CommandResult {
    let program = productsDirectory.appending("qmp-varlinkd").string
    let directory = runtime ?? run.appending("machine")
    return try await command(
      "timeout", ["120"] + launcher + wrapper + [program] + machine(options + ["--runtime-directory", directory.string]) + qemu,
      environment: environment)
  }
}

/// A service in machined's place, as far as registration goes.
@EventLoopActor
private final class StandIn {
  private(set) var registered: [JSONVariant] = []
  private(set) var unregistered: [JSONVariant] = []
  /// The methods that were called, in order.
  private(set) var calls: [String] = []
  /// The first calls have come.
  let registration = Promise<Void>()
  let unregistration = Promise<Void>()
  /// What `Register` does before it replies, given the caller's process.
  var onRegister: @EventLoopActor (Int32?) async throws -> Void = { _ in }
  var onUnregister: @EventLoopActor () async throws -> Void = {}
  private let server: VarlinkServer

  init(at socket: FilePath) throws {
    server = try VarlinkServer(VarlinkServer.Info(vendor: "", product: "", version: "")) { _ in VarlinkError("io.systemd.System") }
    try server.add(
      VarlinkInterface(
        parsing: """
          interface io.systemd.Machine
          type ProcessId(pid: int, pidfdId: ?int, bootId: ?string)
          method Register(
            name: string, id: ?string, service: ?string, class: (container, vm, host), leaderProcessId: ?ProcessId,
            controlAddress: ?string, allocateUnit: ?bool, allowInteractiveAuthentication: ?bool
          ) -> ()
          method Unregister(name: ?string, pid: ?ProcessId) -> ()
          error NoSuchMachine()
          """))
    try server.bind("io.systemd.Machine.Register") { [weak self] call in
      guard let self else { return nil }
      calls.append("Register")
      registered.append(call.parameters)
      registration.fulfil()
      try await onRegister(call.peer.process)
      return nil
    }
    try server.bind("io.systemd.Machine.Unregister") { [weak self] call in
      guard let self else { return nil }
      calls.append("Unregister")
      unregistered.append(call.parameters)
      unregistration.fulfil()
      try await onUnregister()
      return nil
    }
    try server.listen(on: socket, mode: 0o666)
    try server.serve()
  }

  /// Ends it: its socket stays, as a dead one.
  func stop() { server.shutDown() }
}
