/// How the guest sees a drive that is added while it runs; the values of AddStorage's `config`.
public enum StorageConfiguration: String, Sendable, CaseIterable {
  case virtioBlock = "virtio-blk"
  case virtioSCSI = "virtio-scsi"
  case nvme
  /// A CD in a SCSI drive: read-only, whatever the descriptor.
  case scsiCD = "scsi-cd"

  /// QEMU's name for the device.
  var driver: String {
    switch self {
    case .virtioBlock: "virtio-blk-pci"
    case .virtioSCSI: "scsi-hd"
    case .nvme: "nvme"
    case .scsiCD: "scsi-cd"
    }
  }

  /// Whether the device sits on the SCSI controller that all such drives share. The others have a PCIe port of their own.
  var isSCSI: Bool { self == .virtioSCSI || self == .scsiCD }

  /// Whether its device passes on to the guest that the size has changed. QEMU's NVMe device does not, and refuses.
  var canResize: Bool { self == .virtioBlock || self == .virtioSCSI }
}
