import ArgumentParser
import Control
import SystemdEvent
import SystemdJSON

/// A subcommand that is one method of `io.systemd.MachineInstance` without parameters.
protocol OperationCommand: ControlCommand {
  static var method: String { get }
  var machine: MachineOptions { get }
  var output: OutputOptions { get }
}

extension OperationCommand {
  @EventLoopActor func execute() async throws -> CInt {
    let reply = try await machine.connect().call("io.systemd.MachineInstance.\(Self.method)")
    if output.json { try output.write(reply) }
    return 0
  }
}

/// `qmpctl pause`
struct PauseCommand: OperationCommand {
  static let method = "Pause"
  static let configuration = CommandConfiguration(
    commandName: "pause", abstract: "Stop a machine's virtual CPUs. No effect if they are stopped.")

  @OptionGroup var machine: MachineOptions
  @OptionGroup var output: OutputOptions
}

/// `qmpctl resume`
struct ResumeCommand: OperationCommand {
  static let method = "Resume"
  static let configuration = CommandConfiguration(
    commandName: "resume", abstract: "Let a machine's virtual CPUs run again. No effect if they run.")

  @OptionGroup var machine: MachineOptions
  @OptionGroup var output: OutputOptions
}

/// `qmpctl reboot`
struct RebootCommand: OperationCommand {
  static let method = "Reboot"
  static let configuration = CommandConfiguration(commandName: "reboot", abstract: "Press a machine's reset button.")

  @OptionGroup var machine: MachineOptions
  @OptionGroup var output: OutputOptions
}

/// `qmpctl poweroff`
struct PowerOffCommand: OperationCommand {
  static let method = "PowerOff"
  static let configuration = CommandConfiguration(
    commandName: "poweroff",
    abstract: "Press a machine's power button.",
    discussion: "The guest decides what follows, and this does not wait for it. 'qmpctl terminate' does not ask the guest.")

  @OptionGroup var machine: MachineOptions
  @OptionGroup var output: OutputOptions
}

/// `qmpctl terminate`
struct TerminateCommand: OperationCommand {
  static let method = "Terminate"
  static let configuration = CommandConfiguration(
    commandName: "terminate",
    abstract: "End a machine at once, as if its plug were pulled.",
    discussion: "What the guest has not written to its disks is lost. 'qmpctl poweroff' asks the guest.")

  @OptionGroup var machine: MachineOptions
  @OptionGroup var output: OutputOptions
}
