import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("qmpctl top", .onEventLoop)
struct TopTests {
  /// Its sessions stay as they are, however long a test takes.
  private static let machine = ["run", "--park-after", "never"] + bareMachine.dropFirst()

  /// A machine `vm` that runs, and one `dead` whose socket nobody answers; their folder is the only one that is looked into.
  @EventLoopActor
  private static func withMachines(_ body: @escaping @EventLoopActor (RunningDaemon, FilePath) async throws -> Void) async throws {
    try await withTemporaryDirectory { folder in
      let bind = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
      try #require(await command("mkdir", [folder.appending("dead").string]).status == 0)
      try #require(await command("python3", ["-c", bind, folder.appending("dead/control").string]).status == 0)
      _ = try await withDaemon(machine, directory: folder.appending("vm")) { try await body($0, folder) }
    }
  }

  @Test("printed: machines, sessions and what they do") @EventLoopActor
  func printed() async throws {
    try await Self.withMachines { daemon, folder in
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"}"#)
      try await session.wait(for: #"{"return": {}}"#)
      let environment = ["QMPCTL_PATH": folder.string]
      let once = try await command(qmpctlProgram, ["top"], environment: environment)
      #expect(once.status == 0 && once.error.isEmpty, "\(once)")
      let lines = once.output.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
      #expect(lines.first?.joined(separator: " ") == "2 machines, 1 session, 0 commands pending, 1 without answer")
      #expect(lines.contains { $0.prefix(2) == ["dead", "no-answer"] }, "\(once.output)")
      #expect(
        lines.contains { $0.prefix(5) == ["vm", "running", "\(daemon.process)", "1", "0"] && $0.last?.hasSuffix("ms") == true },
        "\(once.output)")
      let row = try #require(lines.first { $0.first?.hasPrefix("qv-") == true })
      #expect(row[1...4] == ["vm", "active", "full", "own"] && row[5].hasSuffix("[\(getpid())]") && row[7] == "30", "\(row)")

      // The second round knows what the first one saw.
      let twice = try await command(qmpctlProgram, ["top", "--iterations", "2", "--interval", "0.1"], environment: environment)
      let rows = twice.output.split(separator: "\n").filter { $0.hasPrefix("qv-") }.map { $0.split(separator: " ").map(String.init) }
      #expect(rows.map { $0[9] } == ["-", "0"], "\(twice.output)")

      let json = try await command(qmpctlProgram, ["top", "--json"], environment: environment)
      #expect(
        json.output.filter { $0 == "\n" }.count == 1 && json.output.contains(#""bytesIn":30"#) && json.output.contains(#""latencyUSec":"#))
      #expect(json.output.hasPrefix(#"[{"name":"dead","#) && json.output.contains(#""error":"nobody answers at"#), "\(json.output)")
    }
  }

  @Test("at a terminal: live, of any size, and gone without a trace") @EventLoopActor
  func screen() async throws {
    try await Self.withMachines { daemon, folder in
      let script = "echo before; '\(qmpctlProgram)' top --interval 0.2"
      for (key, status) in [("q", 0), ("C-c", 0), ("TERM", 143)] {
        try await withTerminal(["sh", "-c", script], environment: ["QMPCTL_PATH": folder.string, "NO_COLOR": "1"]) { window in
          let start = try await window.wait("the machine") { rows in rows.contains { $0.hasPrefix("vm ") && $0.contains(" running ") } }
          #expect(!start.contains("before") && start.last == "q quits, space asks now", "\(start)")
          #expect(start.contains { $0.hasPrefix("dead ") && $0.contains("no-answer") }, "\(start)")
          #expect(try await window.ask("#{alternate_on} #{cursor_flag}") == "1 0")

          let session = try await daemon.acquireQMP()
          try await window.wait("the session") { rows in rows.contains { $0.hasPrefix("qv-") && $0.contains(" active ") } }
          try await session.write(#"{"execute":"qmp_capabilities"}{"execute":"stop"}"#)
          try await window.wait("the new state") { rows in rows.contains { $0.hasPrefix("vm ") && $0.contains(" paused ") } }
          session.endWriting()
          try await session.waitForEnd()
          try await window.wait("no session") { !$0.contains { $0.hasPrefix("qv-") } }

          for (columns, rows) in [(30, 10), (12, 4), (120, 5), (80, 24)] {
            try await window.resize(columns: columns, rows: rows)
            let help = "q quits, space asks now"
            let shown = try await window.wait("\(columns) columns and \(rows) rows") { shown in
              guard shown.count == rows, shown.first?.hasPrefix("2 machines") == true, let last = shown.last else { return false }
              return columns < help.count ? last == help.prefix(columns - 1) + "…" : last.hasPrefix(help)
            }
            #expect(shown.allSatisfy { $0.count <= columns }, "\(shown)")
          }
          // What has no room can be scrolled to.
          try await window.resize(columns: 80, rows: 4)
          try await window.wait("what is hidden") { $0.count == 4 && $0.last?.contains("more lines") == true }
          try await window.press("End")
          try await window.wait("the end") { $0.first?.hasPrefix("MACHINE") == true || $0.first?.hasPrefix("dead") == true }
          try await window.resize(columns: 80, rows: 24)

          if key == "TERM" {
            let shell = try await window.ask("#{pane_pid}")
            let children = try await command("pgrep", ["-P", shell]).output.split(separator: "\n")
            let top = try await command("pgrep", ["-P", String(try #require(children.first))]).output
            kill(try #require(Int32(top.prefix { !$0.isNewline })), SIGTERM)
          } else {
            try await window.press(key)
          }
          let end = try await window.wait(forLast: "restored")
          #expect(end.contains("before") && end.contains("status \(status)"), "\(end)")
          #expect(try await window.ask("#{alternate_on} #{cursor_flag}") == "0 1")
          _ = try await daemon.qmp(#"{"execute":"cont"}"#)
        }
      }
    }
  }

  @Test("a machine that hangs is told, and keeps the others from nothing") @EventLoopActor
  func hangingMachine() async throws {
    try await Self.withMachines { daemon, folder in
      _ = try await withDaemon(Self.machine, directory: folder.appending("well")) { _ in
        let environment = ["QMPCTL_PATH": folder.string, "NO_COLOR": "1"]
        try await withTerminal([qmpctlProgram, "top", "--interval", "0.2", "--timeout", "3"], environment: environment) { window in
          func row(_ name: String, _ words: String...) -> ([String]) -> Bool {
            { rows in rows.contains { row in row.hasPrefix(name + " ") && words.allSatisfy(row.contains) } }
          }
          try await window.wait("both", until: { row("vm", "running")($0) && row("well", "running")($0) })
          daemon.signal(SIGSTOP)
          defer { daemon.signal(SIGCONT) }
          try await window.wait("that it is waited for", until: row("vm", "running", ">"))
          try await window.wait("that it does not answer", until: row("vm", "no-answer"))
          try await window.wait("the other", until: row("well", "running", "ms"))
          daemon.signal(SIGCONT)
          try await window.wait("that it answers again", until: row("vm", "running", "ms"))
          try await window.press("q")
          try await window.wait(forLast: "restored")
        }
      }
    }
  }
}
