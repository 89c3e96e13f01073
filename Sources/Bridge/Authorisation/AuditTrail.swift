import Logging
import QEMUJSON
import SystemdEvent

/// Logs the commands of one session, read as QEMU reads them: however they are spelled or cut, and whatever stands between them.
///
/// Names are logged as they are, arguments without what is secret.
@EventLoopActor
final class AuditTrail {
  /// How much of a command's arguments is logged, in characters.
  private static let longestArguments = 4096

  private var input = JSONInput(keeping: .asItCame(atMost: 0))
  private let logger: Logger
  /// What came last was no command. It is logged once until there is one: a client may send much of that.
  private var isAstray = false

  /// - Parameter logger: has in its metadata whose the session is.
  init(_ logger: Logger) { self.logger = logger }

  /// Takes in what the client wrote.
  func consume(_ bytes: UnsafeRawBufferPointer) {
    var outcomes: [JSONInput.Outcome] = []
    for byte in bytes {
      input.feed(byte, into: &outcomes)
      guard !outcomes.isEmpty else { continue }
      outcomes.forEach(log)
      outcomes.removeAll(keepingCapacity: true)
    }
  }

  private func log(_ outcome: JSONInput.Outcome) {
    guard case .value(let value) = outcome, let name = value["execute"] ?? value["exec-oob"] else {
      if !isAstray { logger.notice("input that is no command") }
      isAstray = true
      return
    }
    isAstray = false
    var metadata: Logger.Metadata = ["command": "\(name.string.map { QObject.string($0).text } ?? "?")"]
    if value["execute"] == nil { metadata["oob"] = "yes" }
    if let arguments = value["arguments"] {
      let text = Secrets.masked(arguments, of: name.string ?? "").text
      metadata["arguments"] = "\(text.prefix(Self.longestArguments))\(text.utf8.count > Self.longestArguments ? "…" : "")"
    }
    logger.notice("command", metadata: metadata)
  }
}

/// What of a command's arguments is not for a log.
enum Secrets {
  private static let mask = QObject.string("***")

  /// Members that are secret wherever they stand.
  private static let names: Set = [
    "password", "passwd", "passphrase", "secret", "new-secret", "old-secret", "key", "keys", "token", "auth", "cookie", "credential",
    // The contents of secret objects and of ring buffers.
    "data",
  ]
  /// Commands whose arguments are what somebody types, or may contain anything.
  private static let opaque: Set = ["human-monitor-command", "send-key", "input-send-event"]

  /// The arguments of a command with what is secret replaced.
  static func masked(_ arguments: QObject, of command: String) -> QObject {
    if opaque.contains(command), let members = arguments.members {
      return .object(QDict(members.ordered.map { ($0.name, mask) }))
    }
    // A property that is set is told by its name.
    if command == "qom-set", let property = arguments["property"]?.string, isSecret(property), let members = arguments.members {
      return .object(QDict(members.ordered.map { ($0.name, $0.name == "value" ? mask : $0.value) }))
    }
    return masked(arguments)
  }

  private static func masked(_ value: QObject) -> QObject {
    switch value {
    case .object(let members):
      .object(QDict(members.ordered.map { ($0.name, isSecret($0.name) && !isContainer($0.value) ? mask : masked($0.value)) }))
    case .array(let elements): .array(elements.map(masked))
    // Options in a string, and addresses with a password in them.
    case .string(let text) where text.hasPrefix("json:") || (text.contains("://") && text.contains("@")): mask
    default: value
    }
  }

  /// What is called `data` has in many commands not a secret but further members.
  private static func isContainer(_ value: QObject) -> Bool {
    switch value {
    case .object, .array: true
    default: false
    }
  }

  private static func isSecret(_ name: String) -> Bool { names.contains(name.lowercased()) }
}
