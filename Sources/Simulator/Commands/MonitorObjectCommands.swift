import OrderedCollections
import QEMUJSON
import SystemdEvent

extension Command {
  /// The commands for objects. With the `object` dialect monitors are among them, as in QEMU 11.1.
  static func objects(_ dialect: SimulatedQEMU.Dialect) -> [Command] {
    let monitorTypes = dialect == .object ? ["monitor-qmp", "monitor-hmp"] : []
    let types = monitorTypes + ["iothread"]
    return [
      Command("object-add", [Parameter("qom-type", .enumeration(types)), Parameter("id", .string)], takesMore: true) {
        call throws(CommandFailure) in
        var arguments = Arguments(call.arguments)
        let type = try arguments.enumeration("qom-type", types)
        let id = try arguments.string("id")
        let options = try monitorTypes.contains(type) ? MonitorOptions(type, &arguments) : nil
        try arguments.finish()
        guard isIdentifier(id) else { throw CommandFailure("Parameter 'id' expects an identifier") }
        guard call.qemu.monitors[id] == nil, !call.qemu.otherObjects.contains(id) else {
          throw CommandFailure("attempt to add duplicate property '\(id)' to object (type 'container')")
        }
        try call.qemu.requireRoomForObject()
        if let options {
          try call.qemu.addMonitor(id, options)
        } else {
          call.qemu.otherObjects.append(id)
        }
        return .nothing
      },
      Command("object-del", [Parameter("id", .string)]) { call throws(CommandFailure) in
        let id = call.string("id")
        if let index = call.qemu.otherObjects.firstIndex(of: id) {
          call.qemu.otherObjects.remove(at: index)
          return .nothing
        }
        guard dialect == .object, let monitor = call.qemu.monitors[id] else { throw CommandFailure("object '\(id)' not found") }
        guard monitor.mode == .qmp else { throw CommandFailure("Deleting HMP monitors is not supported") }
        guard monitor !== call.monitor else { throw CommandFailure("Cannot delete the current QMP monitor") }
        call.qemu.remove(monitor)
        return .nothing
      },
    ]
  }

  /// What QEMU takes for the id of an object.
  private static func isIdentifier(_ id: String) -> Bool {
    let isLetter = { (character: Character) in character.isASCII && character.isLetter }
    guard let first = id.first, isLetter(first) else { return false }
    return id.allSatisfy { isLetter($0) || ($0.isASCII && $0.isNumber) || "-._".contains($0) }
  }
}

/// What object-add or monitor-add says of a monitor.
struct MonitorOptions {
  let mode: Monitor.Mode
  let chardev: String
  let isPretty: Bool
  let closeAction: Monitor.CloseAction

  /// Reads what object-add takes for this type.
  init(_ type: String, _ arguments: inout Arguments) throws(CommandFailure) {
    chardev = try arguments.string("chardev")
    if type == "monitor-qmp" {
      mode = .qmp
      isPretty = try arguments.optionalBoolean("pretty") ?? false
      let action = try arguments.optionalEnumeration("close-action", Monitor.CloseAction.allCases.map(\.rawValue))
      closeAction = action.flatMap(Monitor.CloseAction.init(rawValue:)) ?? .none
    } else {
      mode = .hmp
      _ = try arguments.optionalBoolean("readline")
      isPretty = false
      closeAction = .none
    }
  }

  /// Reads what monitor-add takes.
  init(monitorAdd arguments: QDict) {
    mode = .qmp
    chardev = arguments["chardev"]?.string ?? ""
    isPretty = arguments["pretty"]?.boolean ?? false
    closeAction = .none
  }
}
