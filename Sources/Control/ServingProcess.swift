import Glibc
import SystemdEvent

/// The process that serves a machine.
public struct ServingProcess: Sendable, Equatable {
  public let id: Int32
  /// When it started; nil if that is not to be seen from here.
  public let since: WallTime?

  public init(id: Int32, since: WallTime?) {
    self.id = id
    self.since = since
  }

  /// The one that listens at the other end of a connection, if it is a daemon of ours: behind a socket that systemd opened, the
  /// kernel tells of systemd.
  init?(behind connection: borrowing OwnedDescriptor) {
    guard let id = PeerCredentials(of: connection).process, contents("/proc/\(id)/comm")?.hasPrefix("qmp-varlinkd") == true else {
      return nil
    }
    self.id = id
    since = Self.start(of: id)
  }

  /// When a process started.
  private static func start(of process: Int32) -> WallTime? {
    // The command's name, in brackets, may have brackets and spaces itself.
    guard let text = contents("/proc/\(process)/stat"), let end = text.lastIndex(of: ")") else { return nil }
    let fields = text[end...].split(separator: " ")
    // `starttime`, the 22nd of proc(5), in clock ticks since boot.
    guard fields.count > 20, let ticks = UInt64(fields[20]) else { return nil }
    let running = sinceBoot() - Double(ticks) / Double(sysconf(CInt(_SC_CLK_TCK)))
    let now = WallTime.now.microseconds
    let age = UInt64(max(0, running) * 1_000_000)
    return WallTime(microseconds: now > age ? now - age : 0)
  }

  private static func sinceBoot() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}

/// What is in a small file of /proc.
private func contents(_ path: String) -> String? {
  let raw = open(path, O_RDONLY | O_CLOEXEC)
  guard raw >= 0 else { return nil }
  let file = OwnedDescriptor(owning: raw)
  return withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
    let count = read(file.raw, buffer.baseAddress, buffer.count)
    return count > 0 ? String(decoding: buffer[..<count], as: UTF8.self) : nil
  }
}
