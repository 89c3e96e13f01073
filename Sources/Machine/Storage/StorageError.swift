public import SystemPackage

/// How an operation on a machine's storage can fail.
public enum StorageError: Error, CustomStringConvertible {
  /// There is a drive of that name.
  case exists
  /// There is none.
  case notFound
  /// It was there from the start, and stays.
  case immutable
  /// Something else is under way with it.
  case busy(String)
  /// The drive can be written to and the new descriptor cannot.
  case readOnly
  /// The descriptor is not one of a file or block device that can be read.
  case unsuitable(Errno, String)
  /// This machine cannot have such a drive.
  case notSupported(String)
  /// All PCIe ports for hotplug are taken.
  case noPortLeft(total: Int)
  /// QEMU, or the way to it, failed.
  case machine(MachineError)

  public var description: String {
    switch self {
    case .exists: "there is a drive of that name"
    case .notFound: "there is no drive of that name"
    case .immutable: "the drive was there from the start, and stays"
    case .busy(let what): what
    case .readOnly: "the drive can be written to, and the descriptor is read-only"
    case .unsuitable(_, let what): what
    case .notSupported(let what): what
    case .noPortLeft(let total): "all \(total) PCIe ports for hotplug are taken"
    case .machine(let error): "\(error)"
    }
  }
}
