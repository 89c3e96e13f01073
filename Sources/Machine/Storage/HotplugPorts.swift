import SystemdEvent

/// The PCIe ports for devices that come while the machine runs. A q35 takes no new device anywhere else, so they are made with it
/// (``QEMUCommandLine``).
@EventLoopActor
struct HotplugPorts {
  /// How many a machine of ours gets. A port serves one device, or the SCSI controller with any number of drives.
  nonisolated static let count = 10

  /// How the id of a port is spelled.
  nonisolated static func id(_ number: Int) -> String { "\(Monitors.prefix)p\(number)" }

  let total: Int
  private var free: [String]

  /// - Parameter taken: those of `ports` that have a device.
  init(_ ports: [String], taken: Set<String> = []) {
    total = ports.count
    free = ports.filter { !taken.contains($0) }
  }

  /// Takes a port.
  mutating func reserve() throws(StorageError) -> String {
    guard total > 0 else { throw .notSupported("the machine has no PCIe ports for hotplug") }
    guard !free.isEmpty else { throw .noPortLeft(total: total) }
    return free.removeFirst()
  }

  /// Gives a port back whose device is gone.
  mutating func release(_ port: String) { free.append(port) }
}
