import Subprocess
import SystemPackage
public import SystemdEvent

/// A program in a terminal that a test types in and looks at: a tmux of its own.
@EventLoopActor
public final class TerminalWindow {
  private let socket: FilePath

  fileprivate init(socket: FilePath) { self.socket = socket }

  /// Types text.
  public func type(_ text: String) async throws { try await tmux("send-keys", "-l", "--", text) }

  /// Presses keys, by tmux's names: `Enter`, `C-c`, `Up`.
  public func press(_ keys: String...) async throws { try await tmux(["send-keys"] + keys) }

  /// Pastes text, in the brackets that the program may have asked for.
  public func paste(_ text: String) async throws {
    try await tmux("set-buffer", "--", text)
    try await tmux("paste-buffer", "-p", "-r")
  }

  public func resize(columns: Int, rows: Int) async throws { try await tmux("resize-window", "-x", "\(columns)", "-y", "\(rows)") }

  /// The rows of the screen, without the blanks at their ends and the empty ones at the end.
  public func rows() async throws -> [String] { try await Self.rows(tmux("capture-pane", "-p")) }

  /// The rows of the screen with what gives them their looks.
  public func styledRows() async throws -> [String] { try await Self.rows(tmux("capture-pane", "-p", "-e")) }

  private static func rows(_ captured: String) -> [String] {
    let rows = captured.split(separator: "\n", omittingEmptySubsequences: false)
    return rows.reversed().drop { $0.isEmpty }.reversed().map(String.init)
  }

  /// Where the cursor is, from 0.
  public func cursor() async throws -> (column: Int, row: Int) {
    let numbers = try await ask("#{cursor_x} #{cursor_y}").split(separator: " ").compactMap { Int($0) }
    return (numbers.first ?? -1, numbers.last ?? -1)
  }

  /// What tmux knows: a format, as display-message takes it.
  public func ask(_ format: String) async throws -> String {
    try await String(tmux("display-message", "-p", format).prefix { !$0.isNewline })
  }

  /// Looks at the screen until it is as it should be.
  ///
  /// - Returns: its rows.
  @discardableResult
  public func wait(_ what: String, until condition: ([String]) -> Bool) async throws -> [String] {
    let end = ContinuousClock.now + patience
    var rows = try await rows()
    while !condition(rows) {
      guard .now < end else { throw NeverCame(description: "\(what) never came; the screen:\n\(rows.joined(separator: "\n"))") }
      rows = try await self.rows()
    }
    return rows
  }

  /// Waits until a text is on the screen.
  @discardableResult
  public func wait(for text: String) async throws -> [String] {
    try await wait("'\(text)'") { rows in rows.contains { $0.contains(text) } }
  }

  /// Waits until the last row that has something is this one.
  @discardableResult
  public func wait(forLast row: String) async throws -> [String] { try await wait("the row '\(row)'") { $0.last == row } }

  @discardableResult
  private func tmux(_ arguments: String...) async throws -> String { try await tmux(arguments) }

  @discardableResult
  private func tmux(_ arguments: [String]) async throws -> String {
    let result = try await command("tmux", ["-S", socket.string, "-f", "/dev/null"] + arguments)
    guard result.status == 0 else { throw NeverCame(description: "tmux \(arguments.first ?? ""): \(result.error)") }
    return result.output
  }

  fileprivate func start(_ script: String, _ size: (columns: Int, rows: Int), _ environment: [String: String]) async throws {
    let variables = environment.flatMap { ["-e", "\($0.key)=\($0.value)"] }
    // A status line would take a row, and a lone Escape would be waited with. Windows are as large as they are told to be.
    try await tmux(
      [
        "start-server", ";", "set", "-g", "status", "off", ";", "set", "-s", "escape-time", "0", ";", "set", "-g", "window-size", "manual",
        ";",
      ]
        + ["set", "-g", "default-terminal", "tmux-256color", ";", "new-session", "-d", "-x", "\(size.columns)", "-y", "\(size.rows)"]
        + variables + ["sh", "-c", script])
  }

  fileprivate func stop() async throws { try await tmux("kill-server") }
}

/// Runs a command in a terminal, and `body` at it. When the command has ended, the screen has a row `status N`, and `restored` below if
/// it left the terminal's settings as they were.
@EventLoopActor
public func withTerminal<Result: Sendable>(
  _ command: [String], columns: Int = 80, rows: Int = 24, environment: [String: String] = [:],
  _ body: @escaping @EventLoopActor (TerminalWindow) async throws -> Result
) async throws -> Result {
  try await withTemporaryDirectory { folder in
    let words = command.map { "'" + $0.replacing("'", with: "'\\''") + "'" }.joined(separator: " ")
    let script = """
      before=$(stty -g); \(words); echo "status $?"; [ "$before" = "$(stty -g)" ] && echo restored; exec cat
      """
    let window = TerminalWindow(socket: folder.appending("tmux"))
    try await window.start(script, (columns, rows), environment)
    do {
      let result = try await body(window)
      try await window.stop()
      return result
    } catch {
      try? await window.stop()
      throw error
    }
  }
}
