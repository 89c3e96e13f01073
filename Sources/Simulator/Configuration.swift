extension SimulatedQEMU {
  /// How monitors are added and removed at run time.
  public enum Dialect: String, Sendable, CaseIterable {
    /// `object-add qom-type=monitor-qmp`, as QEMU 11.1 has it.
    case object
    /// `monitor-add`, `monitor-remove`, `query-monitors`, as the monitor-hotplug series has them.
    case monitorAdd = "monitor-add"
    /// Not at all, as before QEMU 11.1.
    case none
  }

  /// What a simulated QEMU is like.
  public struct Configuration: Sendable {
    public var dialect = Dialect.object
    /// What query-version and the greeting say.
    public var version = Version(major: 11, minor: 1, micro: 2)
    public var package = ""
    /// The machine's name; none is like a QEMU without `-name`.
    public var name: String?
    /// Whether the machine runs, or is paused.
    public var isRunning = true
    /// Whether the machine waits for `x-exit-preconfig` before it is made, as with `-preconfig`: most commands are refused until then.
    public var startsInPreconfig = false
    public var faults: [Fault] = []
    public var randomFaults: RandomFaults?
    /// What every chance depends on.
    public var seed: UInt64 = 0
    public var script = Script()
    /// How many bytes a client may leave unread before its connection is closed. QEMU itself has no limit.
    public var longestUnsent = 64 << 20
    /// How many commands are remembered in ``SimulatedQEMU/commands``; older ones are forgotten.
    public var longestLog = 65536
    /// How many monitors, chardevs and other objects there may be together; one more is refused with a GenericError.
    public var mostObjects = 65536
    /// How many descriptors may be stored by getfd and add-fd together; one more is refused with a GenericError.
    public var mostDescriptors = 4096

    public init() {}
  }

  /// A version of QEMU.
  public struct Version: Sendable, Equatable, CustomStringConvertible {
    public var major: Int64
    public var minor: Int64
    public var micro: Int64

    public init(major: Int64, minor: Int64, micro: Int64) {
      self.major = major
      self.minor = minor
      self.micro = micro
    }

    /// Reads `11.1.2`.
    public init?(_ text: String) {
      let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { Int64($0) }
      guard parts.count == 3, let major = parts[0], let minor = parts[1], let micro = parts[2], min(major, minor, micro) >= 0 else {
        return nil
      }
      self.init(major: major, minor: minor, micro: micro)
    }

    public var description: String { "\(major).\(minor).\(micro)" }
  }
}
