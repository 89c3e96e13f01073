import SystemdEvent
import SystemdJSON
import Varlink

/// What a caller may be granted: the classes of a policy file.
public enum Privilege: String, CaseIterable, Sendable {
  /// To see what there is, and events.
  case observe
  /// To pause, resume, restart and end the machine.
  case control
  /// To add drives, replace and remove them.
  case storage
  /// To add monitors and remove them, and to end the sessions of others. Who adds one decides who speaks on it.
  case monitors
  /// Commands that change nothing, one by one or in a session.
  case query
  /// Every command, one by one or in a session: the machine, and what its QEMU may do on the host.
  case full

  /// What whoever has this can do anyway.
  var implied: [Privilege] {
    switch self {
    case .full: Privilege.allCases
    case .query: [.query, .observe]
    default: [self]
    }
  }
}

/// What each method needs, in one place. A method that is not here is nobody's.
@EventLoopActor
enum RequiredPrivilege {
  /// Those of a fixed interface, by their qualified names.
  static let ofMethod: [String: Privilege] = [
    "io.systemd.MachineInstance.Describe": .observe,
    "io.systemd.MachineInstance.SubscribeEvents": .observe,
    "io.systemd.MachineInstance.Pause": .control,
    "io.systemd.MachineInstance.Resume": .control,
    "io.systemd.MachineInstance.PowerOff": .control,
    "io.systemd.MachineInstance.Reboot": .control,
    "io.systemd.MachineInstance.Terminate": .control,
    "io.systemd.MachineInstance.AddStorage": .storage,
    "io.systemd.MachineInstance.RemoveStorage": .storage,
    "io.systemd.MachineInstance.ReplaceStorage": .storage,
    "io.qmpvarlink.Sessions.List": .observe,
    "io.qmpvarlink.Sessions.Watch": .observe,
    "io.qmpvarlink.Sessions.Close": .monitors,
    "io.qmpvarlink.Monitors.List": .observe,
    "io.qmpvarlink.Monitors.Watch": .observe,
    "io.qmpvarlink.Monitors.Add": .monitors,
    "io.qmpvarlink.Monitors.Remove": .monitors,
    "io.qmpvarlink.QMP.SubscribeEvents": .observe,
  ]

  /// What a call needs.
  ///
  /// - Parameter command: the QMP command that a method of `io.qmpvarlink.QMP` is, if it is one.
  /// - Returns: nil if nobody may make it.
  static func of(_ method: String, _ parameters: JSONVariant, command: (String) -> String?) -> Privilege? {
    if let privilege = ofMethod[method] { return privilege }
    switch method {
    case "io.systemd.QemuMachineInstance.AcquireQMP": return parameters["access"]?.string == Access.query.rawValue ? .query : .full
    case "io.qmpvarlink.QMP.Execute":
      // Without a name it is an error whoever calls.
      return parameters["command"]?.string.map(of(command:)) ?? .observe
    default: return command(method).map(of(command:))
    }
  }

  /// What a QMP command needs when it is executed for a caller.
  static func of(command: String) -> Privilege { QueryAccess.permitted.contains(command) ? .query : .full }
}
