extension SimulatedQEMU {
  /// Something that goes wrong with one command.
  public struct Fault: Sendable, Equatable {
    /// What goes wrong.
    public enum Kind: Sendable, Equatable {
      /// The command is not executed and gets no reply.
      case drop
      /// The command is executed and gets no reply.
      case mute
      /// Executing begins so much later; with it wait all in-band commands of all monitors, as in QEMU.
      case delay(Duration)
      /// Up to three bytes of the reply are others. Which ones, the seed tells.
      case garble
      /// The connection of the command's monitor closes: before it is executed, or once it is, without a reply.
      case close(afterExecution: Bool)
      /// Everything closes at once, as if QEMU was killed. The command is not executed.
      case die
      /// The command's reply comes behind the next one of its monitor, and not at all if there is none.
      case reorder
      /// The command is not executed and answered with a GenericError of this text.
      case fail(String)
    }

    public let kind: Kind
    /// The how manieth command it happens to, from 1, in the order in which they come.
    public let command: Int
    /// Counts the commands of this monitor only, if there is one.
    public let monitor: String?

    public init(_ kind: Kind, at command: Int, on monitor: String? = nil) {
      self.kind = kind
      self.command = command
      self.monitor = monitor
    }
  }

  /// Faults that come by themselves, the same ones each time for the same seed.
  public struct RandomFaults: Sendable, Equatable {
    /// How many of the commands meet one, from 0 to 1.
    public let rate: Double
    public let kinds: [Fault.Kind]

    /// Every kind but ``Fault/Kind/die``.
    public static let usualKinds: [Fault.Kind] = [
      .drop, .mute, .delay(.milliseconds(100)), .garble, .close(afterExecution: false), .close(afterExecution: true), .reorder,
      .fail("simulated"),
    ]

    public init(rate: Double, kinds: [Fault.Kind] = usualKinds) {
      self.rate = rate
      self.kinds = kinds
    }
  }
}
