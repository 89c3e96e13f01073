import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

/// Other hosts, by a program that stands in for ssh: each is a folder of machines of its own.
@Suite("qmpctl on other hosts, with a real QEMU", .onEventLoop)
struct QMPControlHostTests {
  /// Makes that program. Of its hosts `alpha` and `beta` have machines, `slow` does not answer, `evil` says what nobody expects, and
  /// the rest cannot be reached.
  @EventLoopActor
  private static func standIn(in folder: FilePath) async throws -> [String: String] {
    let path = folder.appending("ssh")
    let script = """
      #!/usr/bin/env python3
      import os, socket, sys, threading
      arguments = sys.argv[1:]
      forward = None
      if arguments[0] == "-W":
          forward, host, words = arguments[1], arguments[2], []
      else:
          assert arguments[:3] == ["-e", "none", "-T"], arguments
          host, words = arguments[3], arguments[4:]
      if host == "slow":
          sys.stdin.buffer.read() if forward else threading.Event().wait()
      if host == "evil":
          print('[{"name":"\\\\u001b[31mred","socket":"/x/control","status":"\\\\u001b]0;title\\\\u0007","pid":1},{"socket":"relative","name":"b"},7]'
                if len(words) and "7" in os.environ.get("EVIL", "") else
                '[{"name":"\\\\u001b[31mred","socket":"/x/control","status":"\\\\u001b]0;title\\\\u0007","pid":1},{"socket":"r","name":"b"}]')
          sys.exit(0)
      if host not in ("alpha", "user@beta"):
          sys.exit(print(f"ssh: \\033[31mcannot reach {host}", file=sys.stderr) or 255)
      os.environ["QMPCTL_PATH"] = os.path.join("\(folder)", host.split("@")[-1])
      if not forward:
          os.environ["PATH"] = "\(productsDirectory):" + os.environ["PATH"]
          os.execvp("sh", ["sh", "-c", " ".join(words)])
      peer = socket.socket(socket.AF_UNIX)
      peer.connect(forward)
      def upstream():
          while data := os.read(0, 65536): peer.sendall(data)
          peer.shutdown(socket.SHUT_WR)
      threading.Thread(target=upstream, daemon=True).start()
      while data := peer.recv(65536): os.write(1, data)
      """
    let file = try FileDescriptor.open(path, .writeOnly, options: [.create, .truncate], permissions: FilePermissions(rawValue: 0o755))
    try file.closeAfter { _ = try file.writeAll(script.utf8) }
    return ["SYSTEMD_SSH": path.string]
  }

  /// Two hosts with a machine each: `alpha` has `web`, `user@beta` has `db`.
  @EventLoopActor
  private func withHosts(
    _ arguments: [String] = bareMachine, _ body: @escaping @EventLoopActor (FilePath, [String: String], RunningDaemon) async throws -> Void
  ) async throws {
    try await withTemporaryDirectory { folder in
      let environment = try await Self.standIn(in: folder)
      _ = try await withDaemon(arguments, directory: folder.appending("alpha/web")) { web in
        _ = try await withDaemon(bareMachine, directory: folder.appending("beta/db")) { _ in try await body(folder, environment, web) }
      }
    }
  }

  @Test("a fleet is seen at once; a dead host and a slow one are told, not waited for") @EventLoopActor
  func fleet() async throws {
    try await withHosts { folder, environment, web in
      let hosts = ["--host", "alpha", "--host", "dead", "-H", "user@beta", "-H", "slow"]
      let list = try await qmpctl(["list", "--timeout=6"] + hosts, in: folder, environment: environment)
      let lines = list.output.split(separator: "\n")
      #expect(list.status == 69 && lines.count == 4 && lines[0].hasPrefix("HOST "), "\(list)")
      #expect(lines[1].hasPrefix("alpha     web  running ") && lines[1].contains(" \(web.process) "), "\(list)")
      #expect(lines[2].hasPrefix("user@beta db   running ") && lines[3] == "2 machines listed.", "\(list)")
      // What ssh said of it, harmless.
      #expect(list.error.contains("qmpctl: dead: ssh: \\u001b[31mcannot reach dead\n"), "\(list.error)")
      #expect(list.error.contains("qmpctl: slow did not answer within 6s\n"), "\(list.error)")
      let json = try JSONVariant(
        parsing: try await qmpctl(["list", "-j", "--timeout=6"] + hosts, in: folder, environment: environment).output)
      let entries = try #require(json.elements)
      #expect(entries.map { $0["host"]?.string } == ["alpha", "user@beta", "dead", "slow"])
      #expect(entries.map { $0["name"]?.string } == ["web", "db", nil, nil] && entries[2]["error"] != nil && entries[3]["error"] != nil)

      let status = try await qmpctl(["status", "-H", "alpha", "-H", "user@beta", "-H", "dead"], in: folder, environment: environment)
      #expect(status.status == 69 && status.output.split(separator: "State: running\n").count == 3, "\(status)")
      #expect(status.output.contains("Host: alpha\n") && status.output.contains("Host: user@beta\n") && status.error.contains("dead: "))
    }
  }

  @Test("one machine of another host is commanded like one of this") @EventLoopActor
  func oneMachine() async throws {
    try await withHosts(["run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--", "-vga", "std"]) {
      folder, environment, web in
      func remote(_ words: String...) async throws -> CommandResult {
        try await qmpctl(words + ["--host=alpha"], in: folder, environment: environment)
      }
      #expect(try await remote("pause", "web").status == 0)
      #expect(try await web.call("io.systemd.MachineInstance.Describe").contains("paused"))
      #expect(try await remote("resume", web.socket.string).status == 0)
      let unknown = try await remote("pause", "wbe")
      #expect(unknown.status == 69 && unknown.error == "qmpctl: there is no machine 'wbe' at alpha\nThere is: web\n", "\(unknown)")
      let unreachable = try await qmpctl(["pause", "/x/control", "--host=dead"], in: folder, environment: environment)
      #expect(unreachable.status == 69 && unreachable.error.contains("dead: ssh: \\u001b[31mcannot reach dead"), "\(unreachable)")
      #expect(try await qmpctl(["pause", "web", "--host=-oProxyCommand=x"], in: folder, environment: environment).status == 64)

      let screen = folder.appending("screen file.png")
      let taken = try await remote("screenshot", "web", screen.string, "--json")
      #expect(taken.status == 0 && contents(of: screen).utf8.count > 100 && taken.output.contains(#""width":"#), "\(taken)")
      // A file of that host; its name is for that host's shell.
      let image = folder.appending("it's a disk; exit 3.img")
      _ = try await command("truncate", ["-s", "1M", image.string])
      #expect(try await remote("storage", "add", "web", "data", image.string, "--config=virtio-scsi").status == 0)
      let twice = try await remote("storage", "add", "web", "data", image.string)
      #expect(twice.status == 1 && twice.error == "qmpctl: alpha: storage exists\n", "\(twice)")
      #expect(try await remote("schema", "web", "query-name").output.contains("name  string, optional"))
    }
  }

  @Test("a session through ssh is a QMP session, and its end is clean") @EventLoopActor
  func proxy() async throws {
    try await withHosts { folder, environment, web in
      let result = try await command(
        "bash", ["-c", "printf 'query-status\\n' | '\(qmpctlProgram)' proxy web --host alpha -- qmp-shell {}"],
        environment: environment.merging(["QMPCTL_PATH": "/nowhere", "XDG_RUNTIME_DIR": folder.string]) { $1 })
      #expect(result.status == 0 && result.output.contains(#""status": "running""#), "\(result)")
      while try await web.call("io.qmpvarlink.Sessions.List") != #"{"parameters":{"sessions":[]}}"# {}
    }
  }

  @Test("events of several hosts come with their machines' names") @EventLoopActor
  func events() async throws {
    try await withHosts { folder, environment, web in
      let shown = try await withQMPControl(
        ["events", "-H", "slow", "-H", "alpha", "-H", "user@beta", "-H", "dead", "--timeout=3600"], in: folder, environment: environment
      ) { output, _ in
        try await output.wait("two machines") { $0.text.split(separator: "READY").count == 3 }
        _ = try await web.call("io.systemd.MachineInstance.Pause")
        try await output.wait(for: " alpha:web STOP\n")
        return output.text
      }
      #expect(shown.status == 0 && shown.result.contains(" user@beta:db READY\n"), "\(shown)")
      #expect(shown.error.contains("dead: ") && !shown.error.contains("slow"), "\(shown.error)")
      // What was started to reach the hosts has ended too.
      while try await command("pgrep", ["-f", "\(folder)/ssh"]).status == 0 {}
    }
  }

  @Test("what a host says is text, whatever it is") @EventLoopActor
  func untrusted() async throws {
    try await withTemporaryDirectory { folder in
      let environment = try await Self.standIn(in: folder)
      let list = try await qmpctl(["list", "--host=evil"], in: folder, environment: environment)
      #expect(list.status == 0 && !list.output.contains("\u{1B}"), "\(list)")
      #expect(list.output.contains(#"evil \u001b[31mred \u001b]0;title\u0007"#) && list.output.contains("1 machine listed."), "\(list)")
      let unknown = try await qmpctl(["pause", "web", "--host=evil"], in: folder, environment: environment)
      #expect(unknown.status == 69 && unknown.error.hasSuffix(#"There is: \u001b[31mred"# + "\n"), "\(unknown)")
      let nonsense = try await qmpctl(["list", "--host=evil"], in: folder, environment: environment.merging(["EVIL": "7"]) { $1 })
      #expect(nonsense.status == 69 && nonsense.error.contains("answers what is no list of machines"), "\(nonsense)")
      let missing = try await qmpctl(["list", "--host=alpha"], in: folder, environment: ["SYSTEMD_SSH": "/nowhere/ssh"])
      #expect(missing.status == 69 && missing.error.contains("cannot start /nowhere/ssh"), "\(missing)")
    }
  }
}
