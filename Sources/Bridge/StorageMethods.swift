import Machine
import SystemdEvent
import SystemdJSON
import Varlink

/// The methods of `io.systemd.MachineInstance` that add drives and remove them.
///
/// What is wrong with a call is told in the order in which systemd-vmspawn looks: the name, the config, the descriptor, and only then
/// what there is already.
@EventLoopActor
enum StorageMethods {
  static func bind(to server: VarlinkServer, storage: Storage) throws {
    let interface = MachineInstanceService.name
    try server.bind("\(interface).AddStorage") { call in
      let name = try name(call)
      let configuration = try configuration(call)
      try await storage.add(name, BackingFile(call.takeDescriptor("fileDescriptorIndex")), configuration)
      return nil
    }
    try server.bind("\(interface).RemoveStorage") { call in
      try await storage.remove(try name(call))
      return nil
    }
    try server.bind("\(interface).ReplaceStorage") { call in
      let name = try name(call)
      try await storage.replace(name, with: BackingFile(call.takeDescriptor("fileDescriptorIndex")))
      return nil
    }
  }

  private static func name(_ call: VarlinkCall) throws(VarlinkError) -> String {
    guard let name = call.parameters["name"]?.string, !name.isEmpty else { throw .invalidParameter("name") }
    return name
  }

  private static func configuration(_ call: VarlinkCall) throws(VarlinkError) -> StorageConfiguration {
    guard let named = call.parameters["config"]?.string, !named.isEmpty else { return .virtioBlock }
    guard let configuration = StorageConfiguration(rawValue: named) else {
      throw VarlinkError("\(MachineInstanceService.name).BadConfig")
    }
    return configuration
  }
}
