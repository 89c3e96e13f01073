import CSystemd
import Glibc
public import SystemPackage

/// Takes the connections of a listening socket as they come.
///
/// When there is no descriptor for one more, that connection is closed at once: who connects is to know, and neither to wait for
/// somebody else's end nor to keep the loop awake. A socket that waits to be accepted would do both.
@EventLoopActor
public final class Acceptor {
  private let descriptor: OwnedDescriptor
  private let onConnection: (consuming OwnedDescriptor) -> Void
  private let onRefusal: (Errno) -> Void
  private var source: EventSource?
  private var pause: EventSource?

  /// Takes over a socket that listens. Who connects waits for ``isAccepting``.
  ///
  /// - Parameters:
  ///   - onConnection: gets each connection, close-on-exec and non-blocking.
  ///   - onRefusal: told of each connection that could not be had, with the reason.
  public init(
    _ descriptor: consuming OwnedDescriptor, onConnection: @escaping (consuming OwnedDescriptor) -> Void,
    onRefusal: @escaping (Errno) -> Void
  ) throws(SystemdError) {
    let raw = descriptor.raw
    // Each connection is waited for: one that has gone in the meantime must not keep the loop.
    try descriptor.stopBlocking()
    self.descriptor = descriptor
    self.onConnection = onConnection
    self.onRefusal = onRefusal
    SpareDescriptor.shared.hold()
    source = try EventSource.descriptor(raw, .readable) { [weak self] _ in self?.ready() }
    source?.isEnabled = false
  }

  // The source goes before the descriptor that it watches.
  isolated deinit { source.cancel() }

  /// Whether connections are taken; those that come meanwhile wait.
  public var isAccepting = false {
    didSet {
      pause = nil
      source?.isEnabled = isAccepting
    }
  }

  /// The number of the socket's descriptor, to pass it on.
  public var descriptorNumber: CInt { descriptor.raw }

  private func ready() {
    let connection = accept4(descriptor.raw, nil, nil, CInt(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue))
    if connection >= 0 { return onConnection(OwnedDescriptor(owning: connection)) }
    let reason = errno
    guard SpareDescriptor.shortages.contains(reason) else { return }
    // Anything else befell that connection alone; the next may be there.
    onRefusal(Errno(rawValue: reason))
    guard !SpareDescriptor.shared.refuseConnection(at: descriptor.raw) else { return }
    // It would be reported again at once, and again.
    source?.isEnabled = false
    pause = try? EventSource.timer(after: SpareDescriptor.shortage) { [weak self] in
      if let self, isAccepting { source?.isEnabled = true }
    }
    // Without memory for a timer there is nothing better than to try again.
    if pause == nil { source?.isEnabled = true }
  }
}

/// A descriptor that is kept for the moment when there is no other: given up for that moment, it lets a connection be taken and closed.
@EventLoopActor
final class SpareDescriptor {
  static let shared = SpareDescriptor()
  /// What accept(2) fails with when the connection could have been had with more of something.
  nonisolated static let shortages = [EMFILE, ENFILE, ENOBUFS, ENOMEM]
  /// How long to wait when the connection cannot even be refused.
  nonisolated static let shortage = Duration.seconds(1)

  private var held: OwnedDescriptor?

  private init() {}

  /// Has it, if it can be had.
  func hold() {
    guard held == nil else { return }
    let raw = open("/dev/null", O_RDONLY | O_CLOEXEC)
    if raw >= 0 { held = OwnedDescriptor(owning: raw) }
  }

  /// Closes the connection that waits at a listening socket, which does not block.
  ///
  /// - Returns: whether that went well, or there is none any more.
  func refuseConnection(at listener: CInt) -> Bool {
    hold()
    guard held != nil else { return false }
    held = nil
    defer { hold() }
    let connection = accept4(listener, nil, nil, CInt(SOCK_CLOEXEC.rawValue))
    guard connection >= 0 else { return errno == EAGAIN }
    close(connection)
    return true
  }
}
