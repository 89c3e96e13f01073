public import SystemPackage

/// How a conversation with a QMP server can fail, by stage.
public enum QMPError: Error, Equatable, CustomStringConvertible {
  /// No connection came about.
  case connect(path: String, Errno)
  /// The server did not greet as QMP servers do.
  case greeting(String)
  /// The server refused `qmp_capabilities`.
  case negotiation(errorClass: String, desc: String)
  /// The server executed a command and answered with an error: QEMU's own class and text.
  case execute(command: String, errorClass: String, desc: String)
  /// The connection ended before the reply came.
  case disconnected
  /// The reply did not come within ``QMPClient/responseLimit``. The command may still be executed.
  case timedOut
  /// The server sent what is not QMP. The connection is given up.
  case badReply(String)
  /// The reply cannot be read: it is too long, or no JSON that is understood here. The connection goes on.
  case unreadableReply(String)
  /// More commands wait for their replies than ``QMPClient/maximumPending``.
  case overloaded
  /// The system did not take the command, or what had to be kept of it until the server reads on: it is out of descriptors, say. The
  /// server has nothing of it, and the connection goes on.
  case notSent(Errno)

  /// Whether nobody knows what became of the command: it may have been executed.
  public var isUncertain: Bool {
    switch self {
    case .disconnected, .timedOut, .unreadableReply: true
    case .connect, .greeting, .negotiation, .execute, .badReply, .overloaded, .notSent: false
    }
  }

  public var description: String {
    switch self {
    case .connect(let path, .resourceTemporarilyUnavailable): "cannot connect to \(path): it has another client, and more are waiting"
    case .connect(let path, let errno): "cannot connect to \(path): \(errno)"
    case .greeting(let reason): "no QMP greeting: \(reason)"
    case .negotiation(let errorClass, let desc): "QMP negotiation refused: \(desc) (\(errorClass))"
    case .execute(let command, let errorClass, let desc): "\(command): \(desc) (\(errorClass))"
    case .disconnected: "the QMP connection ended"
    case .timedOut: "QEMU does not answer"
    case .badReply(let reason): "not a QMP server: \(reason)"
    case .unreadableReply(let reason): "QEMU's reply cannot be read: \(reason)"
    case .overloaded: "too many QMP commands are waiting for replies"
    case .notSent(let errno): "the command could not be sent: \(errno)"
    }
  }
}
