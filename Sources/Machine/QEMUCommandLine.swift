import SystemPackage
import SystemdEvent

/// A configuration as QEMU's arguments. Pure: whatever has to be found out is a parameter.
struct QEMUCommandLine {
  /// The descriptor in QEMU that the control monitor's socket has. What else it inherits is behind that.
  static let controlDescriptor = ChildProcess.firstDescriptor
  /// The id of the control monitor's chardev.
  static let controlChardev = Monitors.prefix + "control"

  let arguments: [String]

  @EventLoopActor
  init(
    _ configuration: VirtualMachineConfiguration, useKVM: Bool, devices: CommandLineDevices, endsWithParent: Bool, isSandboxed: Bool = false
  ) {
    var arguments = [
      "-name", "guest=\(configuration.name)",
      "-no-user-config", "-nodefaults",
      "-display", "none",
      "-accel", useKVM ? "kvm" : "tcg",
      "-m", configuration.memory,
      "-smp", String(configuration.cpus),
      "-chardev", "socket,id=\(Self.controlChardev),fd=\(Self.controlDescriptor)",
      // -qmp is spelled alike in every QEMU; -mon is deprecated since monitors are objects, and the objects are new.
      "-qmp", "chardev:\(Self.controlChardev)",
    ]
    if let socket = configuration.socketForOthers {
      arguments += ["-qmp", "unix:\(Self.escaped(socket.string)),server=on,wait=off"]
    } else if endsWithParent {
      arguments += ["-run-with", "\(Self.endWithParent)=on"]
    }
    if isSandboxed { arguments += QEMUSandbox.arguments(besides: configuration.qemuArguments) }
    // Who names a machine type knows which processor goes with it; some types take none.
    if configuration.qemuArguments.allSatisfy({ !["-machine", "--machine", "-M"].contains($0) }) {
      arguments += ["-machine", "q35", "-cpu", useKVM ? "host" : "max"] + Self.hotplugPorts
    }
    arguments += devices.machineArguments + devices.ports.arguments + devices.arguments
    if devices.waitsForDevices { arguments.append("-S") }
    if let uuid = configuration.uuid { arguments += ["-uuid", uuid.description] }
    if let kernel = configuration.kernel { arguments += ["-kernel", kernel.string] }
    if let initrd = configuration.initrd { arguments += ["-initrd", initrd.string] }
    let append = [configuration.append].compactMap { $0 } + devices.kernelWords
    if configuration.kernel != nil, !append.isEmpty { arguments += ["-append", append.joined(separator: " ")] }
    switch configuration.console {
    case .none: break
    case .terminal: arguments += ["-chardev", "stdio,id=console,mux=on,signal=off", "-serial", "chardev:console"]
    case .file(let path):
      arguments += ["-chardev", "file,id=console,path=\(Self.escaped(path.string))", "-serial", "chardev:console"]
    }
    self.arguments = arguments + configuration.qemuArguments
  }

  /// The option that ends QEMU with the process that started it; since QEMU 10.2.
  private static let endWithParent = "exit-with-parent"

  /// Whether it is that option that a QEMU did not take, by what it said.
  static func refusesEndWithParent(_ lastWords: [String]) -> Bool {
    lastWords.contains { $0.contains("-run-with") && ($0.contains(endWithParent) || $0.contains("invalid option")) }
  }

  /// Whether QEMU ends instead of resetting the machine, by arguments of the user's; the last of them counts.
  static func endsAtReset(_ arguments: [String]) -> Bool {
    var ends = false
    for (place, argument) in arguments.enumerated() {
      if argument == "-no-reboot" || argument == "--no-reboot" { ends = true }
      guard argument == "-action" || argument == "--action", place + 1 < arguments.count else { continue }
      for setting in arguments[place + 1].split(separator: ",") where setting.hasPrefix("reboot=") { ends = setting == "reboot=shutdown" }
    }
    return ends
  }

  /// A comma ends a value in QEMU's option syntax unless it is doubled.
  private static func escaped(_ value: String) -> String {
    value.split(separator: ",", omittingEmptySubsequences: false).joined(separator: ",,")
  }

  /// The PCIe ports for storage that is added later, eight to a slot of the root bus. Slots and chassis numbers are high ones: users'
  /// own devices count from the other end.
  private static var hotplugPorts: [String] {
    (0..<HotplugPorts.count).flatMap { number in
      let address = "0x\(String(0x10 + number / 8, radix: 16)).\(number % 8)"
      let sharesSlot = number % 8 == 0 ? ",multifunction=on" : ""
      return ["-device", "pcie-root-port,id=\(HotplugPorts.id(number)),bus=pcie.0,chassis=\(240 + number),addr=\(address)\(sharesSlot)"]
    }
  }
}
