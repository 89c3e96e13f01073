import Glibc
public import SystemPackage

/// A file descriptor with one owner: closed when the owner lets go of it.
public struct OwnedDescriptor: ~Copyable, Sendable {
  /// The number, for a system call while the owner lives.
  public let raw: CInt

  /// Takes ownership of an open descriptor.
  public init(owning raw: CInt) {
    precondition(raw >= 0, "not a descriptor: \(raw)")
    self.raw = raw
  }

  deinit { _ = Glibc.close(raw) }

  /// Gives ownership to the caller, who must close it.
  public consuming func take() -> CInt {
    let raw = self.raw
    discard self
    return raw
  }

  /// A new descriptor (close-on-exec) for the same open file.
  public func duplicate() throws(SystemdError) -> OwnedDescriptor {
    let copy = fcntl(raw, F_DUPFD_CLOEXEC, 3)
    guard copy >= 0 else { throw .last("dup") }
    return OwnedDescriptor(owning: copy)
  }

  /// Whether this is a socket, of any kind.
  public var isSocket: Bool {
    var status = stat()
    return fstat(raw, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
  }
}

extension OwnedDescriptor {
  /// Has the kernel hold no more than about `size` bytes that were sent on this socket and not received. Best effort.
  public func limitSendBuffer(to size: CInt) {
    var size = size
    _ = setsockopt(raw, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<CInt>.size))
  }
}

/// Two connected AF_UNIX stream sockets, close-on-exec.
public struct SocketPair: ~Copyable {
  public var ours: OwnedDescriptor
  public var theirs: OwnedDescriptor

  public init() throws(SystemdError) {
    var pair: [CInt] = [-1, -1]
    let type = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, type, 0, &pair) == 0 else { throw .last("socketpair") }
    ours = OwnedDescriptor(owning: pair[0])
    theirs = OwnedDescriptor(owning: pair[1])
  }

  /// The first end alone; the second is closed.
  public consuming func takeOurs() -> OwnedDescriptor { ours }
}

extension OwnedDescriptor {
  /// A stream socket, non-blocking, connected to the UNIX socket at `path`.
  ///
  /// - Throws: `EAGAIN` when the server's queue of connections is full: nothing waits here.
  public static func connected(to path: FilePath) throws(SystemdError) -> OwnedDescriptor {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let capacity = MemoryLayout.size(ofValue: address.sun_path)
    let bytes = Array(path.string.utf8)
    guard bytes.count < capacity else { throw SystemdError("connect", .fileNameTooLong) }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let raw = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard raw >= 0 else { throw .last("socket") }
    let connection = OwnedDescriptor(owning: raw)
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    guard result == 0 else { throw .last("connect") }
    return connection
  }
}
