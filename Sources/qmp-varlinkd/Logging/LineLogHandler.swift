import Glibc
import Logging
import SystemdEvent

/// Writes each message as one line to standard error, for a person to read.
struct LineLogHandler: LogHandler {
  var logLevel: Logger.Level
  var metadata: Logger.Metadata = [:]
  /// Colour is for terminals, and for those who did not refuse it.
  private let usesColour: Bool

  init(logLevel: Logger.Level, onTerminal: Bool) {
    self.logLevel = logLevel
    usesColour = onTerminal && (getenv("NO_COLOR").map { $0.pointee == 0 } ?? true)
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let metadata = metadata.merging(event.metadata ?? [:], uniquingKeysWith: { $1 })
    let details = metadata.sorted { $0.key < $1.key }.map { "\($0)=\($1)" }.joined(separator: " ")
    var line = "qmp-varlinkd: \(Self.prefix(event.level, usesColour))\(Self.printable("\(event.message)"))"
    if !details.isEmpty { line += " (\(Self.printable(details)))" }
    line += "\n"
    Self.lost.unlessLost(isWritable(STDERR_FILENO)) { about in
      if let about { Self.write("qmp-varlinkd: \(Self.prefix(.warning, usesColour))\(about)\n") }
      Self.write(line)
    }
  }

  private static let lost = LostMessages()

  /// One write a message, so that lines of several processes do not mix. Of one that is longer than a pipe is sure to take what comes
  /// later has to be lost.
  private static func write(_ line: String) {
    var rest = Array(line.utf8)[...]
    repeat {
      let count = rest.withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, min($0.count, Int(PIPE_BUF))) }
      guard count > 0 else { return }
      rest = rest.dropFirst(count)
    } while !rest.isEmpty && isWritable(STDERR_FILENO)
  }

  private static func prefix(_ level: Logger.Level, _ usesColour: Bool) -> String {
    let (word, colour): (String, String) =
      switch level {
      case .critical, .error: ("error: ", "31")
      case .warning: ("warning: ", "33")
      case .notice, .info: ("", "0")
      case .debug, .trace: ("debug: ", "2")
      }
    return usesColour && !word.isEmpty ? "\u{1B}[\(colour)m\(word)\u{1B}[0m" : word
  }

  /// What comes from QEMU or a client must not control the terminal. Line ends are kept.
  static func printable(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: controlsTerminal) else { return text }
    return String(String.UnicodeScalarView(text.unicodeScalars.map { controlsTerminal($0) ? "\u{FFFD}" : $0 }))
  }

  /// Unicode's control characters, which are these for good, but for the line end.
  private static func controlsTerminal(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x0A: false
    case 0x00...0x1F, 0x7F...0x9F: true
    default: false
    }
  }
}
