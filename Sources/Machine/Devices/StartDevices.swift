import Glibc
import Logging
import QMP
import SystemPackage
import SystemdEvent
import SystemdJSON

/// The devices of a machine that is about to start: files that are open, programs that run, and what QEMU is told of them.
///
/// Whatever can be attached over QMP is, before the guest runs: an error is then one of an option of ours, in QEMU's words.
@EventLoopActor
final class StartDevices {
  private(set) var commandLine: CommandLineDevices
  private(set) var attachments: [DeviceAttachment] = []
  private(set) var programs: [DeviceProgram] = []
  /// The one of them whose device is on the command line.
  private var commandLineProgram: DeviceProgram?
  private(set) var vsockAddress: UInt32?
  /// Files whose descriptors are in ``attachments``.
  private var files: [AnyObject] = []
  /// The bus of the SCSI controller, once there is one.
  private var scsiBus: String?
  private let configuration: VirtualMachineConfiguration
  private let logger: Logger

  /// Opens all files and starts all programs.
  ///
  /// - Throws: ``MachineError/option(_:)`` for the first that cannot be had; no program is left running.
  static func prepare(_ configuration: VirtualMachineConfiguration, logger: Logger) async throws(MachineError) -> StartDevices {
    let devices = StartDevices(configuration, logger)
    do throws(OptionFailure) {
      try devices.addDrives()
      try devices.addNetwork()
      try devices.addVsock()
      try devices.addFirmware()
      // Programs come last: nothing that fails after them leaves them behind.
      try devices.addFolders()
      try devices.addTPM()
      try devices.addStrings()
    } catch {
      await devices.discard()
      throw .option(error)
    }
    devices.commandLine.waitsForDevices = !devices.attachments.isEmpty
    return devices
  }

  private init(_ configuration: VirtualMachineConfiguration, _ logger: Logger) {
    self.configuration = configuration
    self.logger = logger
    commandLine = CommandLineDevices(ports: StartPorts(qemuArguments: configuration.qemuArguments))
  }

  /// The failure of a start, with the words of the program of the device that has failed, if that has one and it has failed too.
  func explain(_ error: MachineError) async -> MachineError {
    switch error {
    case .option(let failure):
      guard let complaint = await programs.first(where: { $0.option == failure.option })?.complaint() else { return error }
      return .option(OptionFailure(failure.option, "\(failure.reason) (\(complaint))", isRefusal: failure.isRefusal))
    case .startFailed(let status, let lastWords):
      // That was before anything came by QMP: the device is one of the command line.
      guard let complaint = await commandLineProgram?.complaint() else { return error }
      return .startFailed(status, lastWords: lastWords + [complaint])
    default: return error
    }
  }

  /// Ends the programs, for a machine that does not start.
  func discard() async {
    for program in programs { program.process.signal(SIGKILL) }
    for program in programs { _ = await program.process.ended.value }
  }

  // MARK: what comes by QMP

  /// Whether the firmware is told what to boot: a kernel that is booted directly comes before all else.
  var hasBootOrder: Bool { configuration.image != nil && configuration.kernel == nil }

  /// What resets the machine once. Where a reset is to end QEMU, that is suspended: QEMU looks at it when it is told to reset.
  var resetCommands: [QMPCommand] {
    let reset = QMPCommand("system_reset")
    guard QEMUCommandLine.endsAtReset(configuration.qemuArguments) else { return [reset] }
    func action(_ value: String) -> QMPCommand { QMPCommand("set-action", .object(["reboot": .string(value)])) }
    return [action("reset"), reset, action("shutdown")]
  }

  private func addDrives() throws(OptionFailure) {
    if let image = configuration.image {
      try add(
        StartDrive(
          number: 0, option: "--image=\(image)", path: image, format: configuration.imageFormat, type: configuration.imageDiskType,
          isEphemeral: configuration.isEphemeral, isFirst: true))
    }
    for (index, drive) in configuration.extraDrives.enumerated() {
      try add(
        StartDrive(
          number: index + 1, option: "--extra-drive=\(drive.text)", path: drive.path, format: drive.format,
          type: drive.type ?? configuration.imageDiskType))
    }
  }

  private func add(_ drive: StartDrive) throws(OptionFailure) {
    let bus = drive.type.isSCSI ? try scsiBus(for: drive.option) : try port(for: drive.option)
    let (attachment, opened) = try drive.attachment(bus: bus)
    attachments.append(attachment)
    files += opened
  }

  /// The bus of the controller that all SCSI drives of the start share. Those that come later have one of their own: it takes a port
  /// for hotplug, and goes again.
  private func scsiBus(for option: String) throws(OptionFailure) -> String {
    if let scsiBus { return scsiBus }
    let id = "vmspawn_scsi"
    let port = try port(for: option)
    attachments.append(
      DeviceAttachment(
        option: option,
        commands: [
          QMPCommand("device_add", .object(["driver": .string("virtio-scsi-pci"), "id": .string(id), "bus": port.map { .string($0) }]))
        ]))
    scsiBus = "\(id).0"
    return "\(id).0"
  }

  private func port(for option: String) throws(OptionFailure) -> String? {
    do { return try commandLine.ports.take() } catch { throw OptionFailure(option, "\(error)") }
  }

  private func addNetwork() throws(OptionFailure) {
    guard configuration.hasNetwork else { return }
    let option = "--network=user"
    attachments.append(Network.attachment(option: option, forwards: configuration.forwards, bus: try port(for: option)))
  }

  private func addVsock() throws(OptionFailure) {
    guard configuration.vsock != .no else { return }
    let option = "--vsock=\(configuration.vsock.rawValue)"
    let vsock = try Vsock.open(configuration.vsock, address: configuration.vsockAddress, name: configuration.name, option: option)
    guard let (device, address) = vsock else { return logger.notice("no /dev/vhost-vsock: the guest has no AF_VSOCK") }
    files.append(device)
    attachments.append(Vsock.attachment(option: option, device, address: address, bus: try port(for: option)))
    vsockAddress = address
    logger.info("the guest's AF_VSOCK address is \(address)")
  }

  private func addFolders() throws(OptionFailure) {
    var folders: [SharedFolder] = []
    if let directory = configuration.directory {
      folders.append(SharedFolder(option: "--directory=\(directory)", source: directory, tag: "root", isReadOnly: false, number: 0))
      commandLine.kernelWords += ["root=root", "rootfstype=virtiofs", "rw"]
    }
    for (index, bind) in configuration.binds.enumerated() {
      folders.append(
        SharedFolder(
          option: "\(bind.isReadOnly ? "--bind-ro" : "--bind")=\(bind.text)", source: bind.source, tag: Self.tag(index),
          isReadOnly: bind.isReadOnly, number: index + 1))
    }
    for folder in folders {
      let (attachment, socket, program) = try folder.start(bus: try port(for: folder.option), logger: logger)
      attachments.append(attachment)
      files.append(socket)
      programs.append(program)
    }
    // It is QEMU's own memory that virtiofsd reads and writes.
    if !folders.isEmpty { commandLine.shareMemory(configuration.memory) }
  }

  private static func tag(_ index: Int) -> String { "mnt\(index)" }

  // MARK: what is on the command line

  private func addFirmware() throws(OptionFailure) {
    let option: String
    let descriptor: FirmwareDescriptor
    let architecture = FirmwareSearch.architecture(ofQEMU: configuration.qemu)
    let machine = FirmwareSearch.machine(StartPorts.machineType(configuration.qemuArguments))
    switch configuration.firmware {
    case nil, .bios, .some(.none): return
    case .uefi:
      option = "--firmware=uefi"
      do {
        descriptor = try FirmwareSearch.firstUEFI(secureBoot: configuration.secureBoot, architecture: architecture, machine: machine)
      } catch {
        throw OptionFailure(option, "\(error)")
      }
    case .descriptor(let path):
      option = "--firmware=\(path)"
      do { descriptor = try FirmwareSearch.read(path, architecture: architecture, machine: machine) } catch {
        throw OptionFailure(option, "\(error)")
      }
    }
    do throws(SystemdError) {
      // To know that it can be read; QEMU maps it itself.
      _ = try OpenFile.openRegular(descriptor.executable)
      var variables: OpenFile?
      if let template = descriptor.variables {
        variables = OpenFile(try UnnamedFile.make(try OpenFile.contents(of: template, atMost: Self.largestVariables)))
      }
      commandLine.add(descriptor, variables: variables)
    } catch {
      throw OptionFailure(option, "\(error)")
    }
  }

  /// What the template of a firmware's variables may have at most, in bytes: no flash is larger.
  private static let largestVariables = 64 << 20

  private func addTPM() throws(OptionFailure) {
    guard configuration.tpm != .no else { return }
    if configuration.tpm == .auto, DeviceProgram.find(["swtpm"]) == nil { return logger.notice("no TPM: \(TPM.missing)") }
    let (socket, program) = try TPM.start(state: configuration.tpmState, option: "--tpm=\(configuration.tpm.rawValue)", logger: logger)
    programs.append(program)
    commandLineProgram = program
    commandLine.add(tpm: socket)
  }

  private func addStrings() throws(OptionFailure) {
    // They may be secret, and are not repeated.
    for string in configuration.smbiosStrings { try add(string, option: "--smbios11") }
    var credentials: [(name: String, value: [UInt8], option: String)] = []
    for credential in configuration.credentials {
      switch credential.source {
      case .value(let bytes): credentials.append((credential.name, bytes, credential.option))
      case .file(let path):
        do throws(SystemdError) {
          credentials.append((credential.name, try OpenFile.contents(of: path, atMost: Credential.largest), credential.option))
        } catch {
          throw OptionFailure(credential.option, "\(error)")
        }
      }
    }
    if !configuration.binds.isEmpty {
      // The guest's systemd mounts what this credential says; a user may have said more.
      let lines = configuration.binds.enumerated().map { $1.mountLine(tag: Self.tag($0)) }.joined()
      let place = credentials.firstIndex { $0.name == "fstab.extra" }
      let before = place.map { credentials.remove(at: $0).value } ?? []
      let separator = before.isEmpty || before.last == UInt8(ascii: "\n") ? [] : [UInt8(ascii: "\n")]
      credentials.append(("fstab.extra", before + separator + Array(lines.utf8), "--bind"))
    }
    for (name, value, option) in credentials { try add(Credential.smbiosString(name, value), option: option) }
  }

  private func add(_ string: String, option: String) throws(OptionFailure) {
    do throws(SystemdError) {
      commandLine.add(smbios: OpenFile(try UnnamedFile.make(Array(string.utf8))))
    } catch {
      throw OptionFailure(option, "\(error)")
    }
  }
}
