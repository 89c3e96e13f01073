/// What is known of one monitor of a machine, ours or not.
public struct MonitorDescription: Sendable, Equatable {
  /// What a monitor speaks.
  public enum Mode: String, Sendable {
    case qmp, hmp
  }

  public var id: String
  public var mode: Mode
  /// The id of the chardev that carries it.
  public var chardev: String?
  public var isPretty: Bool?
  /// Whether it was made while QEMU ran. A QEMU that does not say so is believed to have made what was there when this
  /// daemon came, and is not ours, from its command line.
  public var isDynamic: Bool
  /// Whether anybody is at the other end of the chardev.
  public var isConnected: Bool?
  /// Whether this daemon controls the machine by it, or keeps it for that.
  public var isControl = false
}

/// Why a monitor cannot be added or removed.
public enum MonitorError: Error, Sendable, Equatable {
  /// There is something of that id already.
  case exists(id: String)
  case noSuchMonitor(id: String)
  case noSuchChardev(String)
  /// A chardev carries one monitor, or something else.
  case chardevInUse(String)
  /// It was there before this daemon, which makes it somebody's who counts on it.
  case notDynamic(id: String)
  /// QEMU cannot remove monitors of this kind.
  case notQMP(id: String)
  /// Without it there would be no control over the machine.
  case isControlMonitor(id: String)
}

extension MonitorError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .exists(let id): "there is a monitor \(id) already, or another object of that id"
    case .noSuchMonitor(let id): "there is no monitor \(id)"
    case .noSuchChardev(let chardev): "there is no chardev \(chardev)"
    case .chardevInUse(let chardev): "the chardev \(chardev) is in use"
    case .notDynamic(let id): "the monitor \(id) was not added while the machine ran"
    case .notQMP(let id): "the monitor \(id) is for people (HMP); QEMU cannot remove those"
    case .isControlMonitor(let id): "the machine is controlled by the monitor \(id)"
    }
  }
}
