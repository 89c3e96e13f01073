import Machine
import SystemdEvent
import SystemdJSON

/// Keeps typed commands from breaking what they are executed on.
///
/// Against mistakes, not against malice: who may call may do as much in a session, and there the spare monitor helps.
@EventLoopActor
enum ControlProtection {
  /// Why a command may not be executed; nil if it may.
  static func refusal(of command: String, _ arguments: JSONVariant?, _ machine: Machine) async throws(MachineError) -> String? {
    switch command {
    case "qmp_capabilities":
      return "the negotiation is over; a session (AcquireQMP) has one of its own"
    case "getfd", "closefd":
      guard arguments?["fdname"]?.string?.hasPrefix(Monitors.prefix) == true else { return nil }
      return "names that begin with \(Monitors.prefix) are the daemon's own"
    case "object-del", "monitor-remove", "chardev-remove", "chardev-change":
      return try await refusal(of: arguments?["id"]?.string, machine)
    case "human-monitor-command":
      let words = arguments?["command-line"]?.string?.split(whereSeparator: \.isWhitespace) ?? []
      guard let verb = words.first, ["object_del", "chardev-remove", "chardev-change"].contains(verb) else { return nil }
      return try await refusal(of: words.dropFirst().first.map(String.init), machine)
    default: return nil
    }
  }

  private static func refusal(of id: String?, _ machine: Machine) async throws(MachineError) -> String? {
    guard let id else { return nil }
    let control = try await machine.controlMonitors()
    if control.monitors.contains(id) { return "the machine is controlled by the monitor \(id)" }
    return control.chardevs.contains(id) ? "the machine is controlled by the monitor on the chardev \(id)" : nil
  }
}
