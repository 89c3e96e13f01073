import Glibc
import Logging
import Machine

/// A logger that writes to the journal if standard error is connected to it, and lines to standard error if not.
func makeLogger(level: Logger.Level, machine: MachineName) -> Logger {
  let toJournal = standardErrorIsJournal(getenv("JOURNAL_STREAM").map { String(cString: $0) })
  return Logger(label: "qmp-varlinkd") { _ in
    if toJournal {
      var handler = JournalLogHandler(logLevel: level)
      handler.metadata["machine"] = "\(machine)"
      return handler
    }
    return LineLogHandler(logLevel: level, onTerminal: isatty(STDERR_FILENO) == 1)
  }
}

/// Whether standard error is the stream that `$JOURNAL_STREAM` names by device and inode (systemd.exec(5)).
private func standardErrorIsJournal(_ stream: String?) -> Bool {
  guard let parts = stream?.split(separator: ":"), parts.count == 2 else { return false }
  var status = stat()
  return fstat(STDERR_FILENO, &status) == 0 && UInt64(parts[0]) == UInt64(status.st_dev) && UInt64(parts[1]) == UInt64(status.st_ino)
}

extension Logger.Level {
  /// The priority of syslog(3), which the journal uses.
  var syslogPriority: Int {
    switch self {
    case .trace, .debug: 7
    case .info: 6
    case .notice: 5
    case .warning: 4
    case .error: 3
    case .critical: 2
    }
  }
}
