import QEMUJSON
import SystemdEvent

extension SimulatedQEMU {
  /// Executes what a client has sent.
  func answer(_ request: Request, _ invocation: Invocation) -> Result<QObject, CommandFailure> {
    Result { () throws(CommandFailure) in try execute(request, invocation) }
      .mapError { failure in
        // A better hint than that the one command that can be executed now is not another one.
        guard !request.monitor.isNegotiated, !request.monitor.isDead, failure.errorClass == "CommandNotFound" else { return failure }
        return CommandFailure("Expecting capabilities negotiation with 'qmp_capabilities'", class: "CommandNotFound")
      }
  }

  private func execute(_ request: Request, _ invocation: Invocation) throws(CommandFailure) -> QObject {
    guard let members = try request.content.get().members else { throw CommandFailure("QMP input must be a JSON object") }
    let monitor = request.monitor
    let (name, isOutOfBand) = try Self.command(in: members, allowingOutOfBand: monitor.isOutOfBandEnabled)
    let command = monitor.isNegotiated || name == "qmp_capabilities" ? command(name) : nil
    let reply = monitor.isNegotiated && !(isOutOfBand && command?.allowsOutOfBand != true) ? scripted(name) : nil
    guard command != nil || reply != nil else { throw CommandFailure("The command \(name) has not been found", class: "CommandNotFound") }
    guard !isOutOfBand || command?.allowsOutOfBand == true else { throw CommandFailure("The command \(name) does not support OOB") }
    guard !isInPreconfig || Command.allowedInPreconfig.contains(name) else {
      throw CommandFailure("The command '\(name)' is permitted only after machine initialization has completed")
    }
    if let reply {
      for event in reply.events { emit(event.name, data: event.data) }
      return try reply.result.get()
    }
    guard let command else { return .nothing }
    return try command.execute(members["arguments"]?.members ?? QDict(), invocation)
  }

  /// Checks the form of a command, member by member in the order of QEMU's hash table.
  private static func command(in members: QDict, allowingOutOfBand: Bool) throws(CommandFailure) -> (name: String, isOutOfBand: Bool) {
    var found: (member: String, name: String)?
    for (member, value) in members.ordered {
      switch member {
      case "execute",
        "exec-oob" where allowingOutOfBand:
        guard let name = value.string else { throw CommandFailure("QMP input member '\(member)' must be a string") }
        if let found { throw CommandFailure("QMP input member '\(member)' clashes with '\(found.member)'") }
        found = (member, name)
      case "arguments":
        guard case .object = value else { throw CommandFailure("QMP input member 'arguments' must be an object") }
      case "id": break
      default: throw CommandFailure("QMP input member '\(member)' is unexpected")
      }
    }
    guard let found else { throw CommandFailure("QMP input lacks member 'execute'") }
    return (found.name, found.member == "exec-oob")
  }
}
