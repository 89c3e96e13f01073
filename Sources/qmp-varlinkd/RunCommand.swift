import ArgumentParser
import Glibc
import Logging
import Machine
import QMP
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

  @OptionGroup(title: "DISKS AND FOLDERS") var drives: DriveOptions

  @OptionGroup(title: "DEVICES") var devices: DeviceOptions

  @Option(
    name: [.long, .customLong("linux")], help: ArgumentHelp("The Linux kernel to boot.", valueName: "file"), completion: .file())
  var kernel: FilePath?

  @Option(name: .long, help: ArgumentHelp("The initial RAM disk for the kernel.", valueName: "file"), completion: .file())
  var initrd: FilePath?

  @Option(name: .long, help: ArgumentHelp("The kernel's command line.", valueName: "text"))
  var append: String?

  @Option(name: .long, help: ArgumentHelp("The guest's memory in QEMU's words. Default: 1G.", valueName: "size"))
  var memory: String?

  @Option(
    name: .long, help: ArgumentHelp("The same in systemd-vmspawn's words.", valueName: "bytes[:maxbytes[:slots]]"),
    transform: { try MemorySize(parsing: $0) })
  var ram: MemorySize?

  @Option(name: .long, help: ArgumentHelp("How many virtual CPUs.", valueName: "number"))
  var cpus = 1

  @Option(name: .long, help: "What runs the guest's code; auto takes KVM where it can run a guest.")
  var accel: VirtualMachineConfiguration.Accelerator?

  @Option(
    name: .long, help: ArgumentHelp("The same in systemd-vmspawn's words.", valueName: "yes|no|auto"), transform: parseTristate)
  var kvm: Tristate?

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

  @Option(
    name: .long,
    help: ArgumentHelp(
      """
      The user that QEMU runs as when the daemon is root's. Disks may be root's alone: QEMU gets them as descriptors. A kernel, an \
      initial RAM disk and /dev/kvm are for that user to open.
      """, valueName: "user"),
    transform: { text in
      guard let user = QEMUUser(text) else { throw ValidationError("there is no user '\(text)' but root") }
      return user
    })
  var runAs: QEMUUser?

  @Option(
    name: .long,
    help: ArgumentHelp(
      """
      Whether QEMU denies itself the system calls that it should not need; a command that makes it do such a one ends it. 'auto' does \
      without where QEMU cannot.
      """, valueName: "auto|yes|no"),
    transform: parseTristate)
  var sandbox = Tristate.auto

  @Flag(
    name: .long,
    help: """
      Leave QEMU running when the daemon ends. It listens for QMP at the socket 'qmp' in the runtime directory, where \
      'qmp-varlinkd attach' finds it. Without this QEMU ends with the daemon, however that ends.
      """)
  var keepRunning = false

  @Flag(
    name: .long,
    help: """
      Go on with the machine that a daemon before has left in the runtime directory, if there is one, instead of starting one. QEMU does \
      not end when the daemon is killed or crashes, so that the next can; it does when the daemon is asked to stop. At SIGUSR2 the daemon \
      hands over to the next, sessions included.
      """)
  var resume = false

  @Argument(parsing: .postTerminator, help: ArgumentHelp("Handed to QEMU as they are, behind all others.", valueName: "QEMU argument"))
  var qemuArguments: [String] = []

  func validate() throws {
    guard cpus > 0 else { throw ValidationError("--cpus must be at least 1.") }
    guard (0...86400).contains(stopTimeout) else { throw ValidationError("--stop-timeout must be 0 to 86400 seconds.") }
    let needsKernel = [
      ("--initrd", initrd != nil), ("--append", append != nil), ("--directory", drives.directory != nil),
      ("--firmware=none", devices.firmware == Firmware.none),
    ]
    if kernel == nil, let option = needsKernel.first(where: \.1)?.0 { throw ValidationError("\(option) needs --kernel.") }
    if memory != nil, ram != nil { throw ValidationError("--memory cannot be used with --ram.") }
    // The memory that is shared with virtiofsd has the size of --memory, and QEMU takes none of another.
    let sharesFolders = drives.directory != nil || !drives.bind.isEmpty || !drives.bindRo.isEmpty
    if sharesFolders, qemuArguments.contains(where: { $0 == "-m" || $0 == "--m" }) {
      throw ValidationError("-m behind -- cannot be used with --bind, --bind-ro and --directory: use --memory.")
    }
    if runAs != nil, keepRunning { throw ValidationError("--run-as cannot be used with --keep-running.") }
    if runAs != nil, resume { throw ValidationError("--run-as cannot be used with --resume.") }
    if runAs != nil, geteuid() != 0 { throw ValidationError("--run-as is for root.") }
    if accel != nil, kvm != nil { throw ValidationError("--accel cannot be used with --kvm.") }
  }

  /// The machine that a daemon before has left, if there is one. While it is at something, it is waited for.
  @EventLoopActor
  private static func found(
    at socket: FilePath, _ service: ServiceOptions, _ logger: Logger, _ cancelled: Promise<Void>
  ) async throws(MachineError) -> Machine? {
    var isWaiting = false
    while true {
      do throws(MachineError) {
        // Not cancelled: who wants the end wants it of that machine, too.
        return try await Machine.attach(
          name: service.machine, to: socket, responseLimit: .seconds(service.responseLimit), adopts: true, logger: logger)
      } catch {
        guard case .qmp(let reason) = error else { throw error }
        switch reason {
        case .connect(_, .noSuchFileOrDirectory), .connect(_, .connectionRefused): return nil
        case .greeting, .timedOut:
          guard cancelled.result == nil else { throw error }
          if !isWaiting { logger.warning("waiting for the machine that a daemon before has left: \(error)") }
          isWaiting = true
        default: throw error
        }
      }
    }
  }

  /// As either option says it.
  var accelerator: VirtualMachineConfiguration.Accelerator {
    switch kvm {
    case .yes: .kvm
    case .no: .tcg
    case .auto, nil: accel ?? .auto
    }
  }

  func run() throws {
    var configuration = VirtualMachineConfiguration(name: service.machine)
    configuration.qemu = qemu
    drives.apply(to: &configuration)
    try devices.apply(to: &configuration)
    configuration.kernel = kernel
    configuration.initrd = initrd
    configuration.append = append
    configuration.memory = memory ?? ram?.qemuValue ?? configuration.memory
    configuration.cpus = cpus
    configuration.accelerator = accelerator
    configuration.console =
      switch console {
      case nil: .none
      case "tty": .terminal
      case let path?: .file(FilePath(path))
      }
    configuration.qemuArguments = qemuArguments
    configuration.sandbox = sandbox
    configuration.user = runAs
    let stopLimits = keepRunning ? nil : Machine.StopLimits(powerOff: .seconds(stopTimeout))
    try Daemon.run(service, stopLimits: stopLimits, findsMachine: resume) {
      [configuration, service, keepRunning, resume] directory, logger, cancelled throws(MachineError) in
      var configuration = configuration
      let socket = directory.appending("qmp")
      if keepRunning || resume { configuration.socketForOthers = socket }
      if resume, let machine = try await Self.found(at: socket, service, logger, cancelled) { return machine }
      return try await Machine.start(
        configuration, responseLimit: .seconds(service.responseLimit), logger: logger, cancelled: cancelled)
    }
  }
}
