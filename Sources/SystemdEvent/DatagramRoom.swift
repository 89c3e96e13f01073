import CSystemd
import Glibc
public import SystemPackage

/// Whether the owner of a UNIX datagram socket has room for a message, which libsystemd's own functions wait for: a service manager or a
/// journal that does not read would hold its service.
///
/// Nothing is sent here. A connected socket is what poll(2) can tell it of.
public struct DatagramRoom: ~Copyable, Sendable {
  private let descriptor: OwnedDescriptor

  /// - Parameter path: the socket's; with a `@` in front one that is in no folder (unix(7)).
  /// - Throws: when nobody has such a socket: nothing can be waited for then.
  public init(at path: FilePath) throws(SystemdError) {
    let raw = Glibc.socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard raw >= 0 else { throw .last("socket") }
    let socket = OwnedDescriptor(owning: raw)
    try socket.connect(to: path, isName: path.string.hasPrefix("@"))
    descriptor = socket
  }

  /// Whether a message can be sent now. A socket whose owner has gone counts: to send there fails, and does not wait.
  public var isThere: Bool { isWritable(descriptor.raw) }

  /// Waits for it, and has all else in this process wait, too.
  ///
  /// - Returns: whether it is there.
  public func wait(until deadline: ContinuousClock.Instant) -> Bool {
    while !isThere {
      let left = deadline - .now
      guard left > .zero else { return false }
      var poller = pollfd(fd: descriptor.raw, events: Int16(POLLOUT), revents: 0)
      poll(&poller, 1, CInt(clamping: left.microseconds / 1000 + 1))
    }
    return true
  }

  /// The socket, which becomes writable when there is room. The caller must close it.
  public consuming func takeDescriptor() -> CInt { descriptor.take() }
}

/// Whether a write to it would not wait, as far as poll(2) can tell: for up to PIPE_BUF bytes on a pipe. It counts for a descriptor on
/// which writing fails.
public func isWritable(_ descriptor: CInt) -> Bool {
  var poller = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
  return poll(&poller, 1, 0) != 0
}
