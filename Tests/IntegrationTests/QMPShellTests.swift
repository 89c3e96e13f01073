import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("qmpctl qmp at a terminal", .onEventLoop)
struct QMPShellTests {
  /// A machine, and the shell on it in a terminal, once it waits for a line. Its prompt is `vm> `.
  @EventLoopActor
  private static func withShell(
    _ options: [String] = [], columns: Int = 80, environment: [String: String] = [:],
    _ body: @escaping @EventLoopActor (RunningDaemon, TerminalWindow, FilePath) async throws -> Void
  ) async throws {
    try await withTemporaryDirectory { folder in
      _ = try await withDaemon(bareMachine, directory: folder.appending("vm")) { daemon in
        try await Self.shell(on: daemon, options, columns: columns, state: folder, environment) { try await body(daemon, $0, folder) }
      }
    }
  }

  @EventLoopActor
  private static func shell(
    on daemon: RunningDaemon, _ options: [String] = [], columns: Int = 80, state: FilePath, _ environment: [String: String] = [:],
    _ body: @escaping @EventLoopActor (TerminalWindow) async throws -> Void
  ) async throws {
    let variables = ["XDG_STATE_HOME": state.string, "NO_COLOR": "", "SWIFT_BACKTRACE": "enable=no"].merging(environment) { $1 }
    let command = [qmpctlProgram, "qmp", daemon.directory.string] + options
    try await withTerminal(command, columns: columns, environment: variables) { window in
      try await window.wait("a prompt") { $0.last?.hasPrefix("vm") == true }
      try await body(window)
    }
  }

  @Test("commands are completed, executed and answered; mistakes are told") @EventLoopActor
  func commands() async throws {
    try await Self.withShell { daemon, window, _ in
      try await window.type("query-na")
      try await window.press("Tab", "Enter")
      try await window.wait(for: #"{"name": "test"}"#)
      try await window.wait(forLast: "vm>")

      // Two that it could be: listed at the second Tab, above the line.
      try await window.type("query-statu")
      try await window.press("BSpace", "Tab", "Tab")
      let rows = try await window.wait(for: "query-stats-schemas")
      #expect(rows.contains { $0.hasPrefix("query-stats ") && $0.contains("query-status") }, "\(rows)")
      try await window.wait(forLast: "vm> query-stat")
      try await window.press("C-u")

      // Names of arguments, values of enums, members of members.
      try await window.type("object-add qom-ty")
      try await window.press("Tab")
      try await window.type("ioth")
      try await window.press("Tab")
      try await window.type("id=io1 poll-max")
      try await window.press("Tab")
      try await window.type("7000")
      try await window.wait(forLast: "vm> object-add qom-type=iothread id=io1 poll-max-ns=7000")
      try await window.press("Enter")
      try await window.wait(for: "{}")
      #expect(try await daemon.qmp(#"{"execute":"query-iothreads"}"#).contains(#""poll-max-ns": 7000"#))
      try await window.type("query-iothreads")
      try await window.press("Enter")
      try await window.wait(for: #"    "poll-max-ns": 7000,"#)

      try await window.press("C-l")
      try await window.type(#"qom-get {"path": "/objects/io1", "property": "type"}"#)
      try await window.press("Enter")
      try await window.wait(for: #""iothread""#)
      try await window.type(#"{"execute": "query-status", "id": 1}"#)
      try await window.press("Enter")
      try await window.wait(for: #"{"status": "running", "running": true}"#)
      try await window.type("set_link name=x up=maybe")
      try await window.press("Enter")
      try await window.wait(for: "'up' is true or false, not 'maybe'")
      try await window.type("nonsense")
      try await window.press("Enter")
      try await window.wait(for: "CommandNotFound: The command nonsense has not been found")
      try await window.type("help qom-get")
      try await window.press("Enter")
      try await window.wait(for: "  property  a string")
      try await window.type("exit")
      try await window.press("Enter")
      try await window.wait(for: "status 0")
      try await window.wait(forLast: "restored")
    }
  }

  @Test("an event comes above the line that is being typed; the line survives that, and any size of the terminal") @EventLoopActor
  func eventsAndSizes() async throws {
    try await Self.withShell { daemon, window, _ in
      try await window.type("query-nme")
      try await window.press("Left", "Left")
      try await window.wait(forLast: "vm> query-nme")
      _ = try await daemon.qmp(#"{"execute":"stop"}"#)
      let rows = try await window.wait("STOP above the line") {
        $0.last == "vm> query-nme" && $0.dropLast().last?.hasSuffix(" STOP") == true
      }
      #expect(rows.filter { $0.contains("query-nme") }.count == 1, "\(rows)")
      #expect(try await window.cursor() == (column: 11, row: rows.count - 1))
      try await window.type("a")
      try await window.press("Enter")
      try await window.wait(for: #"{"name": "test"}"#)

      // Several rows, other sizes, an event in each of them; then the command is still whole.
      let path = "/objects/" + String(repeating: "0123456789", count: 12)
      try await window.type("qom-list path=\(path)")
      for (columns, event) in [(80, "RESUME"), (31, "STOP"), (50, "RESUME"), (100, "STOP"), (17, "RESUME"), (80, "STOP")] {
        try await window.resize(columns: columns, rows: 24)
        _ = try await daemon.qmp(#"{"execute":"\#(event == "STOP" ? "stop" : "cont")"}"#)
        let line = "vm> qom-list path=\(path)"
        let height = (line.count + columns - 1) / columns
        let rows = try await window.wait("\(event) at \(columns) columns") { rows in
          // The event itself may need two rows.
          rows.suffix(height).joined() == line && rows.dropLast(height).suffix(2).joined().hasSuffix(event)
        }
        #expect(rows.dropLast(height).allSatisfy { !$0.contains("56789") }, "\(columns): \(rows)")
      }
      try await window.press("Enter")
      try await window.wait(for: "DeviceNotFound: Device '\(path.prefix(40))")
      try await window.wait(forLast: "vm>")
    }
  }

  @Test("Ctrl-C drops the line, Ctrl-D ends; the history is there again, without secrets, for nobody else") @EventLoopActor
  func endAndHistory() async throws {
    try await Self.withShell { daemon, window, folder in
      try await window.type("quit")
      try await window.press("C-c")
      try await window.wait(for: "vm> quit^C")
      try await window.wait(forLast: "vm>")
      for command in ["query-name", "set_password protocol=vnc password=hidden", " query-kvm", "query-version"] {
        try await window.type(command)
        try await window.press("Enter")
        try await window.wait("a prompt behind '\(command)'") { $0.last == "vm>" && $0.contains("vm> \(command)") }
      }
      try await window.press("C-d")
      try await window.wait(for: "status 0")
      try await window.wait(forLast: "restored")
      let history = folder.appending("qmpctl/history")
      #expect(contents(of: history) == "query-name\nquery-version\n")
      var status = stat()
      #expect(stat(history.string, &status) == 0 && status.st_mode & 0o777 == 0o600)

      try await Self.shell(on: daemon, state: folder) { window in
        try await window.press("Up", "Up")
        try await window.wait(forLast: "vm> query-name")
        try await window.press("C-c", "C-r")
        try await window.type("vers")
        try await window.wait(forLast: "(search 'vers') query-version")
        try await window.press("Enter")
        try await window.wait(for: #""major": "#)
        try await window.paste("query-name\nquery-kvm\n")
        try await window.wait(forLast: "vm> query-name query-kvm")
      }
    }
  }

  @Test("a command that takes its time is left alone with Ctrl-C, and its reply is shown when it comes") @EventLoopActor
  func abandonedCommand() async throws {
    try await Self.withShell { _, window, folder in
      let fifo = folder.appending("fifo")
      try #require(await command("mkfifo", [fifo.string]).status == 0)
      try await window.type("blockdev-add driver=file node-name=blocked read-only=true filename=\(fifo)")
      try await window.press("Enter")
      try await window.press("C-c")
      try await window.wait(for: "blockdev-add is still under way; its reply is shown when it comes.")
      try await window.wait(forLast: "vm>")
      // QEMU waits for the other end.
      close(try await onOwnThread { open(fifo.string, O_WRONLY | O_CLOEXEC) })
      try await window.wait("the reply") { rows in
        rows.contains("blockdev-add:") && rows.contains { $0.hasPrefix("GenericError: 'file' driver requires") }
      }
      try await window.wait(forLast: "vm>")
    }
  }

  @Test("when QEMU goes away there is a message and a status, and the terminal is whole; so it is after a signal") @EventLoopActor
  func ends() async throws {
    try await Self.withShell { daemon, window, folder in
      for (signal, status) in [(SIGTERM, 143), (SIGHUP, 129), (SIGSEGV, 139)] {
        try await Self.shell(on: daemon, state: folder) { window in
          let shell = try #require(try await Int32(window.ask("#{pane_pid}")))
          let child = try await command("pgrep", ["-P", "\(shell)"]).output.split(separator: "\n").compactMap { Int32($0) }
          try await window.type("half a line")
          try await window.wait(forLast: "vm> half a line")
          kill(try #require(child.first), signal)
          try await window.wait(for: "status \(status)")
          try await window.wait(forLast: "restored")
        }
      }
      try await window.type("half a line")
      try await window.wait(forLast: "vm> half a line")
      kill(try daemon.qemu(), SIGKILL)
      let rows = try await window.wait(forLast: "restored")
      #expect(rows.contains("qmpctl: the session with machine 'vm' has ended"), "\(rows)")
      #expect(rows.contains("status 69"))
    }
  }

  @Test("Ctrl-Z stops it, and it goes on with the line as it was") @EventLoopActor
  func suspension() async throws {
    try await withTemporaryDirectory { folder in
      // A folder in the way of the history is told of once.
      try #require(await command("mkdir", ["-p", folder.appending("qmpctl/history").string]).status == 0)
      _ = try await withDaemon(bareMachine, directory: folder.appending("vm")) { daemon in
        let environment = ["XDG_STATE_HOME": folder.string, "NO_COLOR": "1", "PS1": "bash> "]
        try await withTerminal(["bash", "--norc", "-i"], environment: environment) { window in
          try await window.wait(forLast: "bash>")
          try await window.type("\(qmpctlProgram) qmp \(daemon.directory)")
          try await window.press("Enter")
          try await window.wait(forLast: "vm>")
          try await window.type("query-na")
          try await window.press("C-z")
          try await window.wait(forLast: "bash>")
          try await window.type("stty -a | grep -o ' icanon'")
          try await window.press("Enter")
          try await window.wait(forLast: "bash>")
          try await window.wait("the mode of the terminal") { $0.contains(" icanon") }
          try await window.type("fg")
          try await window.press("Enter")
          try await window.wait(forLast: "vm> query-na")
          try await window.type("me")
          try await window.press("Enter")
          try await window.wait(for: #"{"name": "test"}"#)
          try await window.type("query-kvm")
          try await window.press("Enter")
          let rows = try await window.wait(for: #""present": "#)
          #expect(rows.filter { $0.hasPrefix("The history is not kept") }.count == 1, "\(rows)")
          try await window.press("C-d")
          try await window.wait(forLast: "bash>")
          try await window.press("C-d")
          try await window.wait(forLast: "restored")
        }
      }
    }
  }

  @Test("nothing that QEMU says controls the terminal; colours are where they are wanted") @EventLoopActor
  func untrustedText() async throws {
    for (environment, hasColours) in [(["NO_COLOR": "1"], false), (["NO_COLOR": ""], true)] {
      try await Self.withShell(columns: 120, environment: environment) { _, window, _ in
        try await window.type(#"{"execute": "device_add", "arguments": {"driver": "\u001b]2;owned\u0007\u001b[2J\u202e"}}"#)
        try await window.press("Enter")
        try await window.wait(for: #"GenericError: '\u001b]2;owned\u0007\u001b[2J\u202e' is not a valid device model name"#)
        #expect(try await window.ask("#{pane_title}") != "owned")
        try await window.type(#"query-name"#)
        try await window.press("Enter")
        try await window.wait(for: #"{"name": "test"}"#)
        #expect(try await window.styledRows().contains { $0.contains("\u{1B}") } == hasColours)
      }
    }
  }

  @Test("the human monitor") @EventLoopActor
  func humanMonitor() async throws {
    try await Self.withShell(["--hmp"]) { _, window, _ in
      try await window.wait(forLast: "vm (hmp)>")
      try await window.type("info stat")
      try await window.press("Tab", "Tab")
      try await window.wait(for: "stats   status")
      try await window.type("us")
      try await window.press("Tab", "Enter")
      try await window.wait(for: "VM status: running")
      try await window.type("nonsense")
      try await window.press("Enter")
      try await window.wait(for: "unknown command: 'nonsense'")
      try await window.press("C-d")
      try await window.wait(forLast: "restored")
    }
  }
}
