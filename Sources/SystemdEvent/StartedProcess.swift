import Glibc

extension ProcessIdentity {
  /// A process by its id and when it began: what told processes of one id apart before there were pidfds.
  public struct Started: Sendable, Equatable {
    public let id: Int32
    /// In clock ticks since the system was started, as /proc has it.
    public let time: UInt64

    /// The process behind a pidfd; nil when it has ended, or /proc does not show it.
    public init?(_ descriptor: borrowing OwnedDescriptor) {
      guard
        let id = Self.text("/proc/self/fdinfo/\(descriptor.raw)").split(separator: "\n").first(where: { $0.hasPrefix("Pid:") })
          .flatMap({ Int32($0.dropFirst("Pid:".count).drop { $0.isWhitespace }) }), id > 0,
        // What is in front of the state has the name, in which anything may stand.
        let fields = Self.text("/proc/\(id)/stat").split(separator: ")", omittingEmptySubsequences: false).last?.split(separator: " "),
        fields.count > Self.startTime, let time = UInt64(fields[Self.startTime]), Self.runs(descriptor)
      else { return nil }
      self.id = id
      self.time = time
    }

    /// Field 22 of proc_pid_stat(5), counted from the state, the third.
    private static let startTime = 19

    /// Whether it runs, so that what was just read under its id was its own.
    private static func runs(_ descriptor: borrowing OwnedDescriptor) -> Bool {
      var end = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
      return poll(&end, 1, 0) == 0
    }

    private static func text(_ path: String) -> String {
      let raw = open(path, O_RDONLY | O_CLOEXEC)
      guard raw >= 0 else { return "" }
      let file = OwnedDescriptor(owning: raw)
      // Both are a few hundred bytes, and come at once.
      let bytes = [UInt8](unsafeUninitializedCapacity: 4096) { buffer, count in
        count = max(0, Glibc.read(file.raw, buffer.baseAddress, buffer.count))
      }
      return String(decoding: bytes, as: UTF8.self)
    }
  }
}
