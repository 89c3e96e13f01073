import QMP
import SystemdEvent
import SystemdJSON

/// Finds the drives again that a daemon before this one has added: from the ids that it gave them, and from what QEMU says of the
/// nodes and buses that they are on.
@EventLoopActor
struct StorageAdoption {
  /// Where QEMU keeps the devices that have ids.
  static let peripherals = "/machine/peripheral"

  private(set) var drives: [Drive]
  /// The controller that SCSI drives are on, and its port. A daemon has one at a time.
  private(set) var controller: (id: String, port: String)?

  /// - Parameters:
  ///   - devices: the reply to `qom-list` of ``peripherals``.
  ///   - nodes: the reply to `query-named-block-nodes`.
  ///   - controllerPrefix: what the ids of controllers begin with.
  init(
    devices: [JSONVariant], nodes: [JSONVariant], controllerPrefix: String, control: ControlMonitor
  ) async throws(QMPError) {
    let found = devices.compactMap { Drive(device: $0, nodes: nodes) }
    let controllers = devices.compactMap { $0["name"]?.string }.filter { $0.hasPrefix(controllerPrefix) }
    guard !found.isEmpty || !controllers.isEmpty else {
      drives = []
      return
    }
    let devices = found.map(\.deviceID) + controllers
    let buses = await control.pipeline(
      devices.map {
        QMPCommand("qom-get", .object(["path": .string("\(Self.peripherals)/\($0)"), "property": .string("parent_bus")]))
      })
    // A bus's path has the id of the port or the controller that it belongs to.
    var parents: [String: String] = [:]
    var gone: Set<String> = []
    for (device, bus) in zip(devices, buses) {
      let path: [Substring]
      do throws(QMPError) { path = try bus.get().string?.split(separator: "/") ?? [] } catch {
        // It has gone since it was listed.
        guard case .execute = error else { throw error }
        gone.insert(device)
        continue
      }
      if path.count > 2 { parents[device] = String(path[2]) }
    }
    drives = found.filter { !gone.contains($0.deviceID) }
    controller = controllers.lazy.compactMap { id in parents[id].map { (id, $0) } }.first
    for drive in drives {
      let parent = parents[drive.deviceID]
      if drive.configuration.isSCSI {
        drive.usesController = parent == controller?.id
      } else {
        drive.port = parent
      }
    }
  }

  /// Leaves out devices that have gone meanwhile.
  ///
  /// - Returns: the ports that they were on.
  mutating func drop(_ gone: Set<String>) -> Set<String> {
    var ports = Set(drives.filter { gone.contains($0.deviceID) }.compactMap(\.port))
    drives.removeAll { gone.contains($0.deviceID) }
    if let (id, port) = controller, gone.contains(id) {
      ports.insert(port)
      controller = nil
    }
    return ports
  }
}

extension Drive {
  /// One that is there, if this device is one of ours.
  convenience init?(device: JSONVariant, nodes: [JSONVariant]) {
    guard let id = device["name"]?.string, let parts = Storage.parts(ofDevice: id), let type = device["type"]?.string,
      let configuration = StorageConfiguration.allCases.first(where: { type == "child<\($0.driver)>" }),
      let node = nodes.first(where: { $0["node-name"]?.string == parts.node }),
      let file = node["children"]?.elements?.first(where: { $0["child"]?.string == "file" })?["node-name"]?.string
    else { return nil }
    self.init(
      // One whose name did not fit, or one of a daemon that did not note names, goes by its id.
      name: parts.name ?? id, id: parts.node, deviceID: id, configuration, isReadOnly: node["ro"]?.boolean ?? false, fileNode: file,
      size: node["image"]?["virtual-size"]?.integer.map(Int.init) ?? 0)
    state = .attached
  }
}
