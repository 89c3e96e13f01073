import QEMUJSON
import SystemdEvent

/// One thing that a client sent and that gets a reply.
@EventLoopActor
struct Request {
  let monitor: Monitor
  /// Which of the monitor's clients sent it.
  let session: Int
  /// The value that it is, or the complaint about what is none.
  let content: Result<QObject, CommandFailure>
  /// How manieth command it is, over all monitors; 0 for what is no command.
  var number = 0
  /// The same among those of its monitor.
  var ownNumber = 0
  var fault: SimulatedQEMU.Fault.Kind?

  init(_ monitor: Monitor, _ session: Int, _ content: Result<QObject, CommandFailure>) {
    self.monitor = monitor
    self.session = session
    self.content = content
  }

  var members: QDict? { if case .success(.object(let members)) = content { members } else { nil } }

  /// Whether it overtakes what waits. It need not be allowed for that.
  var isOutOfBand: Bool { members.map { $0["exec-oob"] != nil && $0["execute"] == nil } ?? false }

  /// Whether the client that sent it is still there.
  var isOfLastClient: Bool { monitor.session == session }

  /// Whether somebody still waits for the reply.
  var isWanted: Bool { !monitor.isDead && isOfLastClient }
}

/// An error reply.
struct CommandFailure: Error, Equatable {
  let errorClass: String
  let description: String

  init(_ description: String, class errorClass: String = "GenericError") {
    self.errorClass = errorClass
    self.description = description
  }
}
