import Bridge
import Glibc
import Logging
import Machine
import SystemPackage
import SystemdEvent

extension MachineRegistration {
  /// The entry of a machine at systemd-machined, by the rules of the command line. Nothing is registered yet.
  ///
  /// - Parameter ownsMachine: whether the machine ends with the daemon.
  convenience init(of machine: Machine, _ options: ServiceOptions, control: FilePath?, ownsMachine: Bool, logger: Logger) async {
    // Without a path there is nothing that others could connect to.
    let policy = control == nil ? .no : options.register
    var description = MachineDescription(name: "\(machine.name)", controlAddress: control?.absolute ?? "")
    if policy != .no {
      description.id = try? await machine.uuid()
      description.leader = machine.qemuProcess.flatMap { try? ProcessIdentity(of: $0) }
      description.vsockCID = machine.vsockAddress
      description.rootDirectory = machine.rootDirectory?.absolute
      // A scope of machined's ends with the registration, which a machine may outlive with its daemon; and a service's processes belong to
      // the service.
      description.allocatesUnit = ownsMachine && !machine.outlivesDaemon && !options.keepUnit && !ServiceManager.runsThisProcess
    }
    self.init(description, policy, in: options.scope, logger: logger)
  }
}

extension FilePath {
  /// The path seen from the root, for those who have another working directory.
  fileprivate var absolute: FilePath {
    guard let resolved = withPlatformString({ realpath($0, nil) }) else { return self }
    defer { free(resolved) }
    return FilePath(platformString: resolved)
  }
}
