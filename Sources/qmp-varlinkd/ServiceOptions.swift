public import ArgumentParser
public import Logging
public import Machine
public import SystemPackage

/// What both ways of getting at a machine have in common.
struct ServiceOptions: ParsableArguments {
  @Option(name: .long, help: ArgumentHelp("The machine's name: letters, digits, dashes and dots.", valueName: "name"))
  var machine: MachineName

  @Option(
    name: .long,
    help: ArgumentHelp(
      """
      Where the socket 'control' is made. Default: $RUNTIME_DIRECTORY if set, else /run/qmp-varlink/NAME for root and \
      $XDG_RUNTIME_DIR/qmp-varlink/NAME for others.
      """, valueName: "directory"),
    completion: .directory)
  var runtimeDirectory: FilePath?

  @Option(name: .long, help: ArgumentHelp("The least severe messages to log.", valueName: "level"))
  var logLevel: Logger.Level = .info
}

extension MachineName: ExpressibleByArgument {
  /// `init(_:)` under the name that the argument parser wants.
  public init?(argument: String) { self.init(argument) }
}

extension FilePath: @retroactive ExpressibleByArgument {
  public init?(argument: String) {
    guard !argument.isEmpty else { return nil }
    self.init(argument)
  }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}
extension VirtualMachineConfiguration.Accelerator: ExpressibleByArgument {}
