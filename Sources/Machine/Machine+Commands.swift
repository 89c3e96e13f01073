public import QMP
import SystemdEvent
public import SystemdJSON

// Any command of QEMU's, for those who know what they do.
extension Machine {
  /// Executes a command on the control monitor, behind those that are under way there.
  public func execute(_ command: QMPCommand) async throws(MachineError) -> JSONVariant {
    do { return try await control.pipeline([command])[0].get() } catch { throw .qmp(error) }
  }

  /// Executes a command on the control monitor, and gives its reply as QEMU wrote it, unparsed: for one that is very long.
  ///
  /// - Parameter command: without arguments.
  public func replyText(to command: String) async throws(MachineError) -> [UInt8] {
    do { return try await control.replyText(to: command) } catch { throw .qmp(error) }
  }

  /// Executes a command that QEMU permits out of band, without waiting for others.
  public func executeOutOfBand(_ command: String, _ arguments: JSONVariant?) async throws(MachineError) -> JSONVariant {
    try await outOfBand.execute(command, arguments)
  }

  /// Waits until QEMU answers, or is lost.
  public func responding() async { await control.recovered() }

  /// Which monitors, and chardevs of theirs, this daemon needs to control the machine. One more question to QEMU, or three.
  public func controlMonitors() async throws(MachineError) -> (monitors: Set<String>, chardevs: Set<String>) {
    let listed: [MonitorDescription]
    do {
      listed = try await monitors.list().filter(\.isControl)
    } catch .notSupported {
      // A QEMU that cannot remove monitors does not remove the chardev under one either.
      return ([], [])
    }
    return (Set(listed.map(\.id)), Set(listed.compactMap(\.chardev)))
  }
}
