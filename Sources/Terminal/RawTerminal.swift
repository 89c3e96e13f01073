import Glibc
public import SystemdEvent

/// A terminal that gives each key as it is pressed, until it is handed back.
///
/// There is one at a time in a process. Whatever becomes of the process, the terminal is as it was (``TerminalRestoration``).
@EventLoopActor
public final class RawTerminal {
  /// What it is taken for.
  public enum Purpose: Sendable {
    /// Lines below what is there already.
    case lines
    /// The whole screen, in place of what is there.
    case screen
  }

  private let input: CInt
  private let output: CInt
  private let purpose: Purpose
  private let settings: termios
  private var decoder = KeyDecoder()
  private var reading: EventSource?
  private var resizing: EventSource?
  /// Runs while it is open whether Escape was pressed alone.
  private var escapeTimer: EventSource?
  private static let escapePatience = Duration.milliseconds(100)

  /// Called with each key.
  public var onKey: ((Key) -> Void)?
  /// Called when the size has changed.
  public var onResize: (() -> Void)?
  /// Called once, when no more keys come: the terminal is gone.
  public var onHangUp: (() -> Void)?

  /// Whether both descriptors are a terminal on which a cursor can be moved.
  public static func isUsable(input: CInt = 0, output: CInt = 1) -> Bool {
    let kind = getenv("TERM").map { String(cString: $0) } ?? ""
    return isatty(input) == 1 && isatty(output) == 1 && !kind.isEmpty && kind != "dumb"
  }

  /// Takes the terminal. SIGWINCH must be blocked in every thread.
  ///
  /// - Throws: what the kernel says if this is no terminal.
  public init(_ purpose: Purpose, input: CInt = 0, output: CInt = 1) throws(SystemdError) {
    self.purpose = purpose
    self.input = input
    self.output = output
    var settings = termios()
    guard tcgetattr(input, &settings) == 0 else { throw .last("tcgetattr") }
    self.settings = settings
    resizing = try EventSource.signal(SIGWINCH) { [weak self] in self?.onResize?() }
    reading = try EventSource.descriptor(input, .readable) { [weak self] _ in self?.read() }
    try take()
  }

  isolated deinit { close() }

  /// Hands the terminal back.
  public func close() {
    reading.cancel()
    resizing.cancel()
    escapeTimer = nil
    TerminalRestoration.undo()
  }

  /// Hands the terminal back and stops the process, as Ctrl-Z does; takes it again when the process goes on.
  public func suspend() throws(SystemdError) {
    TerminalRestoration.undo()
    raise(SIGTSTP)
    try take()
  }

  /// The size now.
  public var size: TerminalSize { TerminalSize(of: output) }

  /// Writes all of a text, waiting for a terminal that is slow.
  public func write(_ text: String) {
    var text = text
    text.withUTF8 { bytes in
      var rest = UnsafeRawBufferPointer(bytes)
      while !rest.isEmpty {
        let count = Glibc.write(output, rest.baseAddress, rest.count)
        if count > 0 {
          rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        } else if count < 0, errno == EAGAIN {
          var waiting = pollfd(fd: output, events: Int16(POLLOUT), revents: 0)
          poll(&waiting, 1, -1)
        } else if count == 0 || errno != EINTR {
          // A terminal that is gone is noticed by reading.
          return
        }
      }
    }
  }

  private func take() throws(SystemdError) {
    let farewell: StaticString = purpose == .lines ? "\u{1B}[?2004l" : "\u{1B}[?25h\u{1B}[?1049l"
    TerminalRestoration.prepare(.init(settings: settings, input: input, output: output, farewell: farewell))
    var raw = settings
    raw.c_iflag &= ~tcflag_t(BRKINT | ICRNL | IGNCR | INLCR | INPCK | ISTRIP | IXON | PARMRK)
    raw.c_lflag &= ~tcflag_t(ECHO | ECHONL | ICANON | IEXTEN | ISIG)
    withUnsafeMutableBytes(of: &raw.c_cc) {
      $0[Int(VMIN)] = 1
      $0[Int(VTIME)] = 0
    }
    guard tcsetattr(input, TCSADRAIN, &raw) == 0 else { throw .last("tcsetattr") }
    // Pastes are marked as such; or another screen, without a cursor.
    write(purpose == .lines ? "\u{1B}[?2004h" : "\u{1B}[?1049h\u{1B}[?25l")
  }

  private func read() {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = Glibc.read(input, &buffer, buffer.count)
    if count < 0, errno == EINTR || errno == EAGAIN { return }
    guard count > 0 else {
      reading.cancel()
      onHangUp?()
      return
    }
    escapeTimer = nil
    var keys: [Key] = []
    for byte in buffer[..<count] { decoder.feed(byte, into: &keys) }
    for key in keys { onKey?(key) }
    guard decoder.isAmidSequence else { return }
    escapeTimer = try? EventSource.timer(after: Self.escapePatience) { [weak self] in
      guard let self else { return }
      var keys: [Key] = []
      decoder.flush(into: &keys)
      for key in keys { onKey?(key) }
    }
  }
}
