import CSystemd
import Glibc
public import SystemPackage

/// A stream socket that takes connections one by one, when it is asked for the next. Until then they wait in the kernel's
/// queue, which has a bound. One whose turn it is when there are no descriptors is closed.
@EventLoopActor
public final class ListeningSocket {
  /// Where it was made, if it was made here.
  public let path: FilePath?
  private var descriptor: OwnedDescriptor?
  /// What is at the path: somebody may have put something else there since.
  private let identity: FileIdentity?
  private var source: EventSource?
  private var pause: EventSource?
  private var waiter: CheckedContinuation<CInt?, Never>?

  /// How many connections may wait.
  private static let backlog: CInt = 16

  /// Makes a UNIX socket at `path`, for this user alone. One that nobody listens at any more is replaced.
  ///
  /// - Throws: `EADDRINUSE` when there is anything else.
  public init(at path: FilePath) throws(SystemdError) {
    let raw = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard raw >= 0 else { throw .last("socket") }
    let descriptor = OwnedDescriptor(owning: raw)
    // Before bind(2), which makes the file with the mode that the socket has.
    guard fchmod(raw, 0o600) == 0 else { throw .last("fchmod") }
    do {
      try descriptor.bind(to: path)
    } catch {
      guard error.errno == .addressInUse, Self.isStale(path) else { throw error }
      unlink(path.string)
      try descriptor.bind(to: path)
    }
    guard listen(raw, Self.backlog) == 0 else { throw .last("listen") }
    self.path = path
    identity = FileIdentity(of: path)
    self.descriptor = consume descriptor
    try watch(raw)
  }

  /// A socket that listens at `path`, in the place of one that a dead process left there.
  ///
  /// - Parameter mode: the file's, whatever the umask.
  public nonisolated static func open(at path: FilePath, mode: CInterop.Mode) throws(SystemdError) -> OwnedDescriptor {
    let raw = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard raw >= 0 else { throw .last("socket") }
    let descriptor = OwnedDescriptor(owning: raw)
    var status = stat()
    if lstat(path.string, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK { unlink(path.string) }
    // bind(2) makes the file, and others may look at it from then on.
    let previous = umask(~mode & 0o777)
    defer { umask(previous) }
    do { try descriptor.bind(to: path) } catch { throw SystemdError("cannot listen at \(path)", error.errno) }
    guard listen(raw, SOMAXCONN) == 0 else { throw .last("listen") }
    return descriptor
  }

  /// Takes over a socket that listens already.
  public init(_ descriptor: consuming OwnedDescriptor) throws(SystemdError) {
    let raw = descriptor.raw
    path = nil
    identity = nil
    self.descriptor = consume descriptor
    try watch(raw)
  }

  /// Goes on with one that another run of this program made.
  ///
  /// - Parameter path: where it was made.
  public init(_ descriptor: consuming OwnedDescriptor, madeAt path: FilePath?) throws(SystemdError) {
    let raw = descriptor.raw
    self.path = path
    identity = path.flatMap { FileIdentity(of: $0) }
    self.descriptor = consume descriptor
    try watch(raw)
  }

  // The source goes before the descriptor that it watches.
  isolated deinit { close() }

  /// The descriptor's number, for passing it on; -1 once this is closed.
  public var descriptorNumber: CInt { descriptor?.raw ?? -1 }

  /// Whether somebody waits for the next connection. Who has got one, and has not gone on since, does not.
  public var isAwaited: Bool { waiter != nil }

  /// The next connection, close-on-exec; nil once this is closed. One caller at a time.
  public func accept() async -> OwnedDescriptor? {
    guard descriptor != nil else { return nil }
    let connection = await withCheckedContinuation { (continuation: CheckedContinuation<CInt?, Never>) in
      precondition(waiter == nil, "two callers wait for the next connection")
      waiter = continuation
      source?.isEnabled = true
    }
    guard let connection else { return nil }
    return OwnedDescriptor(owning: connection)
  }

  /// Ends it, and removes what it made at ``path``. Connections that wait are refused.
  public func close() {
    source.cancel()
    pause = nil
    if let path, let identity, descriptor != nil, FileIdentity(of: path) == identity { unlink(path.string) }
    descriptor = nil
    let waiting = waiter
    waiter = nil
    waiting?.resume(returning: nil)
  }

  private func watch(_ raw: CInt) throws(SystemdError) {
    SpareDescriptor.shared.hold()
    source = try EventSource.descriptor(raw, .readable) { [weak self] _ in self?.ready() }
    source?.isEnabled = false
  }

  private func ready() {
    guard let raw = descriptor?.raw, let continuation = waiter else { return }
    let connection = accept4(raw, nil, nil, CInt(SOCK_CLOEXEC.rawValue))
    if connection >= 0 {
      source?.isEnabled = false
      waiter = nil
      continuation.resume(returning: connection)
    } else if SpareDescriptor.shortages.contains(errno), !SpareDescriptor.shared.refuseConnection(at: raw) {
      // It would be reported again at once, and again.
      source?.isEnabled = false
      pause = try? EventSource.timer(after: SpareDescriptor.shortage) { [weak self] in
        if let self, waiter != nil { source?.isEnabled = true }
      }
    }
    // Anything else befell that connection alone; the next may be there.
  }

  /// Whether there is a socket that nobody has any more. It is asked with the wrong type of socket, which one that is alive
  /// refuses for another reason, and does not take for a client.
  private static func isStale(_ path: FilePath) -> Bool {
    // Files of any other kind are refused in the same words.
    var status = stat()
    guard lstat(path.string, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return false }
    let raw = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard raw >= 0 else { return false }
    let probe = OwnedDescriptor(owning: raw)
    do {
      try probe.connect(to: path)
      return false
    } catch {
      return error.errno == .connectionRefused
    }
  }
}

/// Which file is at a path.
private struct FileIdentity: Equatable {
  let device: UInt
  let node: UInt

  init?(of path: FilePath) {
    var status = stat()
    guard lstat(path.string, &status) == 0 else { return nil }
    device = UInt(status.st_dev)
    node = UInt(status.st_ino)
  }
}
