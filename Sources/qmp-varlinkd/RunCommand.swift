import ArgumentParser
import Machine
import SystemPackage
import SystemdEvent

/// `qmp-varlinkd run`
struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run",
    abstract: "Start a virtual machine and serve it.",
    usage: "qmp-varlinkd run --machine <name> [options] [-- <QEMU argument> ...]",
    discussion: """
      Stays in the foreground until the machine ends. SIGTERM or SIGINT presses the power button; if the guest has not \
      powered off after --stop-timeout, or at a second signal, QEMU is told to quit, and killed if it does not.
      """)

  @OptionGroup var service: ServiceOptions

  @Option(name: .long, help: ArgumentHelp("The disk image to boot from, raw or qcow2.", valueName: "file"), completion: .file())
  var image: FilePath?

  @Option(name: .long, help: ArgumentHelp("The Linux kernel to boot.", valueName: "file"), completion: .file())
  var kernel: FilePath?

  @Option(name: .long, help: ArgumentHelp("The initial RAM disk for the kernel.", valueName: "file"), completion: .file())
  var initrd: FilePath?

  @Option(name: .long, help: ArgumentHelp("The kernel's command line.", valueName: "text"))
  var append: String?

  @Option(name: .long, help: ArgumentHelp("The guest's memory, such as 512M.", valueName: "size"))
  var memory = "1G"

  @Option(name: .long, help: ArgumentHelp("How many virtual CPUs.", valueName: "number"))
  var cpus = 1

  @Option(name: .long, help: "What runs the guest's code; auto takes KVM where it can run a guest.")
  var accel = VirtualMachineConfiguration.Accelerator.auto

  @Option(
    name: .long,
    help: ArgumentHelp(
      "The guest's serial console: 'tty' for this terminal (Ctrl-A x ends QEMU), or a file.", valueName: "tty|file"),
    completion: .file())
  var console: String?

  @Option(name: .long, help: ArgumentHelp("The QEMU program.", valueName: "program"))
  var qemu = "qemu-system-x86_64"

  @Option(name: .long, help: ArgumentHelp("How long the guest may take to power off.", valueName: "seconds"))
  var stopTimeout = 60

  @Flag(
    name: .long,
    help: """
      Leave QEMU running when the daemon ends. It listens for QMP at the socket 'qmp' in the runtime directory, where \
      'qmp-varlinkd attach' finds it. Without this QEMU ends with the daemon, however that ends.
      """)
  var keepRunning = false

  @Argument(parsing: .postTerminator, help: ArgumentHelp("Handed to QEMU as they are, behind all others.", valueName: "QEMU argument"))
  var qemuArguments: [String] = []

  func validate() throws {
    guard cpus > 0 else { throw ValidationError("--cpus must be at least 1.") }
    guard (0...86400).contains(stopTimeout) else { throw ValidationError("--stop-timeout must be 0 to 86400 seconds.") }
    if kernel == nil, let option = initrd != nil ? "--initrd" : append != nil ? "--append" : nil {
      throw ValidationError("\(option) needs --kernel.")
    }
  }

  func run() throws {
    var configuration = VirtualMachineConfiguration(name: service.machine)
    configuration.qemu = qemu
    configuration.image = image
    configuration.kernel = kernel
    configuration.initrd = initrd
    configuration.append = append
    configuration.memory = memory
    configuration.cpus = cpus
    configuration.accelerator = accel
    configuration.console =
      switch console {
      case nil: .none
      case "tty": .terminal
      case let path?: .file(FilePath(path))
      }
    configuration.qemuArguments = qemuArguments
    let stopLimits = keepRunning ? nil : Machine.StopLimits(powerOff: .seconds(stopTimeout))
    try Daemon.run(service, stopLimits: stopLimits) {
      [configuration, service, keepRunning] directory, logger, cancelled throws(MachineError) in
      var configuration = configuration
      if keepRunning { configuration.socketForOthers = directory.appending("qmp") }
      return try await Machine.start(
        configuration, responseLimit: .seconds(service.responseLimit), logger: logger, cancelled: cancelled)
    }
  }
}
