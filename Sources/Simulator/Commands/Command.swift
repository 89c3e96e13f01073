import QEMUJSON
import SystemdEvent

/// What one command takes and does.
@EventLoopActor
struct Command {
  typealias Body = @EventLoopActor (Invocation) throws(CommandFailure) -> QObject

  let name: String
  let parameters: [Parameter]
  /// What the reply is, for those who ask for the schema.
  let returns: ParameterType
  /// May overtake those that wait.
  let allowsOutOfBand: Bool
  /// Takes members beyond its parameters, and checks them itself.
  let takesMore: Bool
  let body: Body

  init(
    _ name: String, _ parameters: [Parameter] = [], returns: ParameterType = .object, allowsOutOfBand: Bool = false,
    takesMore: Bool = false,
    _ body: @escaping Body
  ) {
    self.name = name
    self.parameters = parameters
    self.returns = returns
    self.allowsOutOfBand = allowsOutOfBand
    self.takesMore = takesMore
    self.body = body
  }

  /// Checks the arguments, then executes.
  func execute(_ arguments: QDict, _ invocation: Invocation) throws(CommandFailure) -> QObject {
    var reader = Arguments(arguments)
    for parameter in parameters { _ = try reader.take(parameter) }
    if !takesMore { try reader.finish() }
    invocation.arguments = arguments
    return try body(invocation)
  }
}

/// A named argument of a command.
struct Parameter: Sendable {
  let name: String
  let type: ParameterType
  let isOptional: Bool

  init(_ name: String, _ type: ParameterType, optional: Bool = false) {
    self.name = name
    self.type = type
    isOptional = optional
  }
}

/// The types of QAPI, as far as the simulator tells them apart.
indirect enum ParameterType: Sendable, Hashable {
  case string, boolean, integer, any, object
  case array(ParameterType)
  case enumeration([String])
}

/// One call of a command, and what comes of it besides the reply.
@EventLoopActor
final class Invocation {
  let monitor: Monitor
  unowned let qemu: SimulatedQEMU
  /// The arguments, checked.
  fileprivate(set) var arguments = QDict()
  /// Done once the reply is out.
  private(set) var afterReply: [() -> Void] = []
  /// The monitor that the command came on is no more, and still to get its reply.
  var removesItself = false
  /// The reply, and everything else in-band, waits until the test says so.
  var isBlocking = false

  init(_ monitor: Monitor, _ qemu: SimulatedQEMU) {
    self.monitor = monitor
    self.qemu = qemu
  }

  func afterReply(_ action: @escaping () -> Void) { afterReply.append(action) }

  /// A string that has been checked to be there.
  func string(_ name: String) -> String { arguments[name]?.string ?? "" }
}

extension QObject {
  /// What a command returns that has nothing to say.
  static var nothing: QObject { [:] }
}
