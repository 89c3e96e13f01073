import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON

/// What of a machine's devices is on QEMU's command line, because QEMU takes it nowhere else: firmware, strings of the SMBIOS, the TPM,
/// the kind of memory, and the ports for the devices that come by QMP.
@EventLoopActor
struct CommandLineDevices {
  var ports: StartPorts
  /// Whether devices come by QMP before the guest may run.
  var waitsForDevices = false
  /// What QEMU inherits behind the control monitor's socket. Their numbers there are by ``inherit(_:)``.
  private(set) var inherited: [OpenFile] = []
  private(set) var arguments: [String] = []
  /// Words for the kernel's command line.
  var kernelWords: [String] = []
  private var machineProperties: [String] = []

  init(ports: StartPorts) { self.ports = ports }

  /// Passes a file on, and gives its number in QEMU.
  private mutating func inherit(_ file: OpenFile) -> CInt {
    inherited.append(file)
    return QEMUCommandLine.controlDescriptor + CInt(inherited.count)
  }

  /// Lets a user open what is inherited and has no name: QEMU opens it anew. What has a name stays as it is.
  func give(to user: QEMUUser) throws(SystemdError) {
    for file in inherited {
      var status = stat()
      guard fstat(file.descriptor.raw, &status) == 0 else { throw .last("fstat") }
      guard status.st_mode & S_IFMT == S_IFREG, status.st_nlink == 0 else { continue }
      guard fchown(file.descriptor.raw, user.id, user.group) == 0 else { throw .last("cannot give a file to \(user.name)") }
    }
  }

  /// - Parameter variables: a copy that is the machine's own.
  mutating func add(_ firmware: FirmwareDescriptor, variables: OpenFile?) {
    func flash(_ name: String, _ format: ImageFormat, _ path: String, isReadOnly: Bool) {
      let node = JSONVariant.object([
        "driver": .string(format.rawValue), "node-name": .string(name), "read-only": .boolean(isReadOnly),
        "file": .object(["driver": .string("file"), "filename": .string(path), "read-only": .boolean(isReadOnly)]),
      ])
      arguments += ["-blockdev", node.text]
      machineProperties.append("pflash\(machineProperties.count)=\(name)")
    }
    flash("\(Monitors.prefix)code", firmware.executableFormat, firmware.executable.string, isReadOnly: true)
    if let variables {
      flash("\(Monitors.prefix)vars", .raw, "/dev/fd/\(inherit(variables))", isReadOnly: false)
    }
    if firmware.needsSMM {
      machineProperties.append("smm=on")
      arguments += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    }
  }

  /// - Parameter string: a file with the string. They can be long, and secret, and everybody sees a command line.
  mutating func add(smbios string: OpenFile) { arguments += ["-smbios", "type=11,path=/dev/fd/\(inherit(string))"] }

  /// - Parameter socket: leads to swtpm.
  mutating func add(tpm socket: OpenFile) {
    let id = "\(Monitors.devicePrefix)tpm"
    arguments += [
      "-chardev", "socket,id=\(id),fd=\(inherit(socket))", "-tpmdev", "emulator,id=\(id),chardev=\(id)", "-device", "tpm-tis,tpmdev=\(id)",
    ]
  }

  /// Has the guest's memory in a file that programs of devices can map.
  ///
  /// - Parameter memory: as in `-m`.
  mutating func shareMemory(_ memory: String) {
    let id = "\(Monitors.devicePrefix)ram"
    arguments += ["-object", "memory-backend-memfd,id=\(id),share=on,size=\(Self.size(memory))"]
    machineProperties.append("memory-backend=\(id)")
  }

  /// The size alone. What has no unit is in MiB in `-m`, and in bytes everywhere else.
  static func size(_ memory: String) -> String {
    let parts = memory.split(separator: ",")
    let size = parts.first { $0.hasPrefix("size=") }?.dropFirst("size=".count) ?? parts.first ?? ""
    return size.allSatisfy(\.isNumber) ? "\(size)M" : String(size)
  }

  /// The properties of the machine, beside its type, which the user may have chosen: QEMU puts all of them together.
  var machineArguments: [String] { machineProperties.isEmpty ? [] : ["-machine", machineProperties.joined(separator: ",")] }
}
