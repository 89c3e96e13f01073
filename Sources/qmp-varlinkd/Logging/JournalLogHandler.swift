import CSystemd
import Glibc
import Logging
import Synchronization
import SystemPackage
import SystemdEvent

/// Sends each message to the journal as structured fields: metadata `session` becomes `QMP_VARLINK_SESSION`, and so on.
struct JournalLogHandler: LogHandler {
  var logLevel: Logger.Level
  var metadata: Logger.Metadata = [:]

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    var fields = [
      "MESSAGE=\(event.message)", "PRIORITY=\(event.level.syslogPriority)", "SYSLOG_IDENTIFIER=qmp-varlinkd",
      "CODE_FILE=\(event.file)", "CODE_LINE=\(event.line)", "CODE_FUNC=\(event.function)",
    ]
    for (key, value) in metadata.merging(event.metadata ?? [:], uniquingKeysWith: { $1 }) {
      fields.append("QMP_VARLINK_\(Self.fieldName(key))=\(value)")
    }
    Self.lost.unlessLost(Self.hasRoom) { about in
      if let about { Self.send(["MESSAGE=\(about)", "PRIORITY=4", "SYSLOG_IDENTIFIER=qmp-varlinkd"]) }
      Self.send(fields)
    }
  }

  private static let lost = LostMessages()
  /// Where sd_journal_sendv(3) sends to.
  private static let room = Mutex<DatagramRoom?>(nil)

  /// A journal that has gone has room: to send there fails.
  private static var hasRoom: Bool {
    room.withLock { room in
      if room == nil { room = try? DatagramRoom(at: "/run/systemd/journal/socket") }
      return room?.isThere ?? true
    }
  }

  private static func send(_ fields: [String]) {
    let texts = fields.map { strdup($0) }
    defer { for text in texts { free(text) } }
    let vectors = texts.map { iovec(iov_base: $0, iov_len: $0.map { strlen($0) } ?? 0) }
    sd_journal_sendv(vectors, CInt(vectors.count))
  }

  /// A field name as the journal accepts it: capital letters, digits and underscores.
  static func fieldName(_ key: String) -> String {
    String(key.uppercased().map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "_" })
  }
}
