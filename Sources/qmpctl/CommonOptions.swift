public import ArgumentParser
public import Control
import SystemdEvent
import SystemdJSON

/// How results are shown.
struct OutputOptions: ParsableArguments {
  @Flag(name: [.customShort("j"), .long], help: "Print JSON: for programs, and without colours.")
  var json = false

  /// Prints a value as one line of JSON.
  @EventLoopActor func write(_ value: JSONVariant) throws { try StandardOutput.write("\(value.text)\n") }
}

/// How long to wait.
struct TimeoutOption: ParsableArguments {
  @Option(name: .long, help: ArgumentHelp("How long an answer may take.", valueName: "seconds"))
  var timeout = 15

  var limit: Duration { .seconds(timeout) }

  func validate() throws {
    guard (1...86400).contains(timeout) else { throw ValidationError("--timeout must be 1 to 86400 seconds.") }
  }
}

/// Which machine.
struct MachineOptions: ParsableArguments {
  @Argument(help: ArgumentHelp("The machine's name, or the path of its control socket.", valueName: "name"))
  var name: String

  @Option(
    name: [.customShort("H"), .long],
    help: ArgumentHelp("The host that the machine is on, reached by SSH.", valueName: "user@host"))
  var host: SSHHost?

  @OptionGroup var time: TimeoutOption

  /// Connects to it.
  ///
  /// - Throws: ``ControlError``.
  @EventLoopActor func connect() async throws(ControlError) -> MachineConnection {
    try await .connect(to: name, on: host, within: time.limit)
  }
}

/// Which hosts.
struct HostsOption: ParsableArguments {
  @Option(
    name: [.customShort("H"), .customLong("host")], parsing: .singleValue,
    help: ArgumentHelp("Another host, reached by SSH; several are asked at once.", valueName: "user@host"))
  var hosts: [SSHHost] = []
}

extension SSHHost: ExpressibleByArgument {
  /// `init(_:)` under the name that the argument parser wants.
  public init?(argument: String) { self.init(argument) }
}
