public import SystemdEvent

/// Reads lines from a person at a terminal, who can edit them, and shows what comes meanwhile above the line that is being typed.
@EventLoopActor
public final class LineReader {
  /// What came of a line.
  public enum Input: Equatable, Sendable {
    case line(String)
    /// Ctrl-C: the line was given up.
    case interrupted
    /// Ctrl-D on an empty line, or the terminal is gone.
    case ended
    /// ``LineReader/close()`` was called.
    case closed
  }

  /// How many keys are kept that are pressed while no line is read.
  private static let mostEarlyKeys = 4096

  private let terminal: RawTerminal
  private var editor: LineEditor
  private var display: LineDisplay
  private var reading: CheckedContinuation<Input, Never>?
  private var earlyKeys: [Key] = []
  /// Ctrl-C was pressed while nobody wanted to know.
  private var isInterrupted = false
  private var end: Input?

  /// Tells what could stand at the end of a text.
  public var completing: (String) -> LineCompletion = { _ in .none }
  /// Called for Ctrl-C while no line is read; at once, if it was pressed since the last line came.
  public var onInterrupt: (() -> Void)? {
    didSet {
      guard isInterrupted, let onInterrupt else { return }
      isInterrupted = false
      onInterrupt()
    }
  }
  /// What the prompt looks like.
  public var promptStyle: (String) -> String = { $0 }

  /// - Parameters:
  ///   - terminal: taken over; its handlers are this object's.
  ///   - prompt: plainly visible text.
  public init(_ terminal: RawTerminal, prompt: String, history: History = History()) {
    self.terminal = terminal
    editor = LineEditor(prompt: prompt, history: history)
    display = LineDisplay(size: terminal.size)
    terminal.onKey = { [weak self] in self?.pressed($0) }
    terminal.onResize = { [weak self] in self?.resized() }
    terminal.onHangUp = { [weak self] in self?.finish(.ended) }
  }

  /// The terminal's size now.
  public var size: TerminalSize { display.size }

  /// Reads the next line. One caller at a time.
  public func read() async -> Input {
    precondition(reading == nil, "a line is being read")
    if let end { return end }
    isInterrupted = false
    return await withCheckedContinuation { continuation in
      reading = continuation
      draw()
      while reading != nil, !earlyKeys.isEmpty { handle(earlyKeys.removeFirst()) }
    }
  }

  /// Shows text, above the line that is being typed if there is one.
  ///
  /// - Parameter text: whole lines without the last line end; what comes from elsewhere is escaped before.
  public func show(_ text: String) {
    // The signal that tells of another size may be on its way still.
    display.size = terminal.size
    terminal.write(display.erase() + text + "\n" + (reading == nil ? "" : drawing()))
  }

  /// Ends the reading, and hands the terminal back.
  public func close() {
    finish(.closed)
    terminal.close()
  }

  // MARK: what happens

  private func pressed(_ key: Key) {
    guard reading == nil else { return handle(key) }
    if key == .control("c") {
      earlyKeys = []
      if let onInterrupt { onInterrupt() } else { isInterrupted = true }
    } else if earlyKeys.count < Self.mostEarlyKeys {
      earlyKeys.append(key)
    }
  }

  private func handle(_ key: Key) {
    switch editor.handle(key, completing: completing) {
    case .edited: draw()
    case .refused: terminal.write("\u{7}" + drawing())
    case .accepted(let line): leave("", .line(line))
    case .interrupted: leave("^C", .interrupted)
    case .ended: leave("", .ended)
    case .offers(let candidates): show(inColumns(candidates, width: display.size.columns))
    case .clearsScreen:
      _ = display.erase()
      terminal.write("\u{1B}[H\u{1B}[2J" + drawing())
    case .suspended:
      terminal.write(display.leave())
      do { try terminal.suspend() } catch { return finish(.ended) }
      resized()
    }
  }

  private func resized() {
    display.size = terminal.size
    if reading != nil { draw() }
  }

  private func draw() { terminal.write(drawing()) }

  private func drawing() -> String {
    let shown = editor.shown
    return display.draw(prompt: editor.prompt, before: shown.before, behind: shown.behind, style: promptStyle)
  }

  /// Goes on below the line, whose cursor is put at its end first.
  private func leave(_ mark: String, _ input: Input) {
    terminal.write(mark + display.leave())
    reading?.resume(returning: input)
    reading = nil
  }

  private func finish(_ input: Input) {
    guard end == nil else { return }
    end = input
    guard let reading else { return }
    self.reading = nil
    terminal.write(display.leave())
    reading.resume(returning: input)
  }
}
