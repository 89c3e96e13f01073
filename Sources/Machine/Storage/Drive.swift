import QMP
import SystemdEvent
import SystemdJSON

/// One drive that was added while the machine runs, by this daemon or by one before it.
///
/// In QEMU it is a device on a node of driver `raw` on a node for the file. The node in the middle is what the device holds on to
/// when the file is replaced. The format is always raw: to look at what is in the file would be to believe the guest, which writes it.
@EventLoopActor
final class Drive {
  enum State: Equatable {
    case adding, attached, replacing
    /// The guest is asked to let go of it, or what is left of it is being taken back.
    case removing
  }

  /// What the caller calls it.
  let name: String
  /// The id of the node that the device is on.
  let id: String
  /// The id of the device: that of the node, and the name, if that fits. The next daemon has it from there.
  let deviceID: String
  let configuration: StorageConfiguration
  /// Fixed when the guest gets to see it: no guest expects a disk to change in this.
  let isReadOnly: Bool
  /// The node of the file that backs it now.
  var fileNode: String
  /// That file's size, in bytes.
  var size: Int
  var state = State.adding
  /// The PCIe port that it takes; none for those on the SCSI controller.
  var port: String?
  /// Whether it has a place on the SCSI controller.
  var usesController = false
  /// When the guest was last asked to let go of it; nil while that is under way.
  var asked: ContinuousClock.Instant?
  /// Fulfilled when its name is free again.
  let hasGone = Promise<Void>()
  /// Whether its device was deleted by somebody else, while an operation was under way.
  var wasDeleted = false

  init(name: String, id: String, file: FileNode, _ configuration: StorageConfiguration) {
    self.name = name
    self.id = id
    deviceID = DriveName.encode(name).map { "\(id)-\($0)" } ?? id
    self.configuration = configuration
    isReadOnly = configuration == .scsiCD || file.backing.isReadOnly
    fileNode = file.id
    size = file.backing.size
  }

  /// One that is there already.
  init(
    name: String, id: String, deviceID: String, _ configuration: StorageConfiguration, isReadOnly: Bool, fileNode: String, size: Int
  ) {
    self.name = name
    self.id = id
    self.deviceID = deviceID
    self.configuration = configuration
    self.isReadOnly = isReadOnly
    self.fileNode = fileNode
    self.size = size
  }

  /// The options of the node in the middle, on top of the node for a file.
  func node(on file: String) -> JSONVariant {
    .object([
      "driver": .string("raw"), "node-name": .string(id), "file": .string(file), "read-only": .boolean(isReadOnly),
    ])
  }

  /// The command that shows it to the guest.
  func deviceAdd(bus: String) -> QMPCommand {
    QMPCommand(
      "device_add",
      .object([
        "driver": .string(configuration.driver), "id": .string(deviceID), "bus": .string(bus), "drive": .string(id),
        // Required, and the only one of the devices where it is.
        "serial": configuration == .nvme ? .string(id) : nil,
      ]))
  }

  var deviceDelete: QMPCommand { QMPCommand("device_del", .object(["id": .string(deviceID)])) }
}

extension QMPCommand {
  /// Deletes a block node.
  @EventLoopActor static func nodeDelete(_ node: String) -> QMPCommand { QMPCommand("blockdev-del", .object(["node-name": .string(node)])) }
}
