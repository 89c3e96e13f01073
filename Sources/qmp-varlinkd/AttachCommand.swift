import ArgumentParser
import Machine
import SystemPackage
import SystemdEvent

/// `qmp-varlinkd attach`
struct AttachCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attach",
    abstract: "Serve a virtual machine that runs already.",
    discussion: """
      Takes a QMP socket of a running QEMU for its control monitor: one that nothing else uses, since QEMU serves one \
      client per socket. When the daemon stops, QEMU goes on.
      """)

  @OptionGroup var service: ServiceOptions

  @Option(name: .long, help: ArgumentHelp("The QMP socket of the running QEMU.", valueName: "unix:PATH"))
  var qmp: QMPAddress

  func run() throws {
    try Daemon.run(service, stopLimits: nil) { [service, qmp] _, logger, cancelled throws(MachineError) in
      try await Machine.attach(
        name: service.machine, to: qmp.path, responseLimit: .seconds(service.responseLimit), logger: logger,
        cancelled: cancelled)
    }
  }
}

/// The address of a QMP server, as the command line spells it.
struct QMPAddress: ExpressibleByArgument {
  let path: FilePath

  init?(argument: String) {
    let path = argument.hasPrefix("unix:") ? String(argument.dropFirst("unix:".count)) : argument
    guard path.contains("/") else { return nil }
    self.path = FilePath(path)
  }
}
