import SystemdEvent
public import SystemdJSON

/// What a QMP server says of itself when a client connects (QMP specification, "Server Greeting").
public struct Greeting: Sendable, Equatable {
  /// QEMU's version, such as `11.1.2`.
  public let version: String
  /// The capabilities that can be enabled, such as `oob`.
  public let capabilities: [String]
}

/// One event of the server (QMP specification, "Asynchronous events").
public struct QMPEvent: Sendable {
  public let name: String
  /// The event's own data, for those that have any.
  public let data: JSONVariant?
  /// `{"seconds": …, "microseconds": …}` of the server's clock.
  public let timestamp: JSONVariant?
  /// The event as it came, on one line and without its end; empty unless the client was asked to keep it.
  public let text: [UInt8]
  /// Whether it could be parsed. One that could not be, for a NUL in a string, say, has nothing but its ``text``.
  public var isReadable: Bool { !name.isEmpty }

  public init(name: String, data: JSONVariant?, timestamp: JSONVariant?, text: [UInt8] = []) {
    self.name = name
    self.data = data
    self.timestamp = timestamp
    self.text = text
  }

  /// One that could not be parsed.
  init(unreadable text: [UInt8]) { self.init(name: "", data: nil, timestamp: nil, text: text) }
}

/// A command on its way to the server.
public struct QMPCommand: Sendable {
  public let name: String
  public let arguments: JSONVariant?
  /// Passed along with the command's first byte (SCM_RIGHTS). They stay the caller's, who keeps them open until the reply.
  public let descriptors: [CInt]
  /// Executed at once, whatever the server is at. Replies keep their order among commands that are all of this kind, on a
  /// connection that has the capability `oob`.
  public let isOutOfBand: Bool

  public init(_ name: String, _ arguments: JSONVariant? = nil, descriptors: [CInt] = [], isOutOfBand: Bool = false) {
    self.name = name
    self.arguments = arguments
    self.descriptors = descriptors
    self.isOutOfBand = isOutOfBand
  }
}

/// What comes from the server, told apart by how it begins, as every QEMU writes it: for what need not be parsed, or cannot be.
enum MessageKind {
  case greeting, event, reply

  init(of message: some Collection<UInt8>) {
    // A server that is pretty writes white space before the first name.
    let rest = message.dropFirst().drop { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\r") || $0 == UInt8(ascii: "\n") }
    self = rest.starts(with: #""timestamp""#.utf8) ? .event : rest.starts(with: #""QMP""#.utf8) ? .greeting : .reply
  }
}

/// What comes from the server, told apart.
enum ServerMessage {
  case greeting(Greeting)
  case reply(JSONVariant)
  case error(errorClass: String, desc: String)
  case event(QMPEvent)

  /// Whether this answers a command.
  var isReply: Bool {
    switch self {
    case .reply, .error: true
    case .greeting, .event: false
    }
  }

  /// - Parameter text: the message as it came; for events only.
  /// - Throws: the reason, if this is none of the four.
  @EventLoopActor
  init(_ message: JSONVariant, _ text: [UInt8] = []) throws(QMPError) {
    if let value = message["return"] {
      self = .reply(value)
    } else if let name = message["event"]?.string {
      self = .event(QMPEvent(name: name, data: message["data"], timestamp: message["timestamp"], text: text))
    } else if let error = message["error"] {
      guard let errorClass = error["class"]?.string, let desc = error["desc"]?.string else {
        throw .badReply("an error without class or desc")
      }
      self = .error(errorClass: errorClass, desc: desc)
    } else if let greeting = message["QMP"] {
      guard let number = greeting["version"]?["qemu"] else { throw .greeting("it has no version") }
      let version = ["major", "minor", "micro"].map { String(number[$0]?.integer ?? 0) }.joined(separator: ".")
      self = .greeting(Greeting(version: version, capabilities: greeting["capabilities"]?.elements?.compactMap(\.string) ?? []))
    } else {
      throw .badReply("a message that is neither greeting, reply nor event")
    }
  }
}
