import Glibc
import SystemdEvent
import SystemPackage

/// Why a character device cannot be had, in QEMU's words.
struct OpenFailure: Error {
  let reason: String
}

/// A listening UNIX socket that lets one client in at a time; the others wait in the kernel's queue.
@EventLoopActor
final class Listener {
  /// The socket's file, if it has one; removed with the listener.
  let path: String
  private var descriptor: OwnedDescriptor?
  private var source: EventSource?
  private var retry: EventSource?
  var onClient: ((consuming OwnedDescriptor) -> Void)?

  /// Makes a socket at `path`, in the place of one that is there.
  convenience init(at path: String) throws(OpenFailure) {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count <= MemoryLayout.size(ofValue: address.sun_path) else {
      throw OpenFailure(reason: "UNIX socket path '\(path)' is too long")
    }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let raw = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard raw >= 0 else { throw OpenFailure(reason: "Failed to create Unix socket: \(Self.lastError)") }
    let descriptor = OwnedDescriptor(owning: raw)
    unlink(path)
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    guard bound == 0 else { throw OpenFailure(reason: "Failed to bind socket to \(path): \(Self.lastError)") }
    try self.init(adopting: descriptor, path)
  }

  /// Takes over a socket that is bound, and perhaps listens already.
  convenience init(adopting descriptor: consuming OwnedDescriptor) throws(OpenFailure) {
    let path = Self.path(of: descriptor.raw)
    try self.init(adopting: descriptor, path)
  }

  private init(adopting descriptor: consuming OwnedDescriptor, _ path: String) throws(OpenFailure) {
    guard listen(descriptor.raw, 1) == 0 else { throw OpenFailure(reason: "Failed to listen on fd socket: \(Self.lastError)") }
    _ = fcntl(descriptor.raw, F_SETFL, fcntl(descriptor.raw, F_GETFL) | O_NONBLOCK)
    self.path = path
    self.descriptor = consume descriptor
  }

  isolated deinit { source.cancel() }

  /// Whether a client may come in.
  var accepts = false {
    didSet {
      guard accepts != oldValue else { return }
      if source == nil, let raw = descriptor?.raw {
        source = try? EventSource.descriptor(raw, .readable) { [weak self] _ in self?.accept() }
      }
      source?.isEnabled = accepts
    }
  }

  /// Closes the socket, and removes its file unless it is to look as if QEMU had been killed.
  func close(removingFile: Bool) {
    guard descriptor != nil else { return }
    source.cancel()
    descriptor = nil
    if removingFile, !path.isEmpty { unlink(path) }
  }

  private func accept() {
    guard accepts, let raw = descriptor?.raw else { return }
    let client = Glibc.accept(raw, nil, nil)
    guard client >= 0 else { return waitForDescriptors() }
    _ = fcntl(client, F_SETFD, FD_CLOEXEC)
    onClient?(OwnedDescriptor(owning: client))
  }

  /// The client stays in the queue when there are no descriptors left; asking at once again would keep the loop busy.
  private func waitForDescriptors() {
    guard errno == EMFILE || errno == ENFILE else { return }
    source?.isEnabled = false
    retry = try? EventSource.timer(after: .milliseconds(100)) { [weak self] in
      guard let self else { return }
      source?.isEnabled = accepts
    }
  }

  private static var lastError: Errno { Errno(rawValue: errno) }

  private static func path(of descriptor: CInt) -> String {
    var address = sockaddr_un()
    var length = socklen_t(MemoryLayout<sockaddr_un>.size)
    let result = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
    }
    guard result == 0 else { return "" }
    return withUnsafeBytes(of: address.sun_path) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
}
