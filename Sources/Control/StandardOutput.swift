import Glibc
public import SystemdEvent

/// This program's standard output.
public enum StandardOutput {
  /// Nobody reads it any more.
  public struct Closed: Error {}

  /// Whether a person looks at it.
  public static var isTerminal: Bool { isatty(1) == 1 }

  /// Writes all of a text, at once.
  ///
  /// - Throws: ``Closed``, if SIGPIPE is ignored, and `SystemdError` for anything else.
  public static func write(_ text: String) throws {
    try write(Array(text.utf8))
  }

  /// Writes all of some bytes, at once.
  ///
  /// - Throws: ``Closed``, if SIGPIPE is ignored, and `SystemdError` for anything else.
  public static func write(_ bytes: [UInt8]) throws {
    try bytes.withUnsafeBytes { bytes in
      var rest = bytes
      while !rest.isEmpty {
        let count = Glibc.write(1, rest.baseAddress, rest.count)
        if count >= 0 {
          rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        } else if errno == EAGAIN {
          // Somebody made it non-blocking for all who have it.
          var poller = pollfd(fd: 1, events: Int16(POLLOUT), revents: 0)
          poll(&poller, 1, -1)
        } else if errno == EPIPE {
          throw Closed()
        } else if errno != EINTR {
          throw SystemdError.last("standard output")
        }
      }
    }
  }

  /// Calls `handler` when nobody reads it any more: then it would be of no use to wait for more to write.
  ///
  /// - Returns: what watches it; nil if it is a file, which nobody leaves.
  @EventLoopActor
  public static func whenClosed(_ handler: @escaping @EventLoopActor () -> Void) -> EventSource? {
    try? .descriptor(1, []) { _ in handler() }
  }
}
