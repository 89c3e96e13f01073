import CSystemd
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

  /// Has reads and writes of the open file fail with `EAGAIN` instead of waiting, for all who share it.
  public func stopBlocking() throws(SystemdError) {
    let flags = fcntl(raw, F_GETFL)
    guard flags >= 0, fcntl(raw, F_SETFL, flags | O_NONBLOCK) >= 0 else { throw .last("fcntl") }
  }

  /// Whether this is a stream socket that is connected, or one that listens; nil for everything else.
  public var streamSocket: StreamSocket? {
    func option(_ name: CInt) -> CInt? {
      var value: CInt = 0
      var length = socklen_t(MemoryLayout<CInt>.size)
      return getsockopt(raw, SOL_SOCKET, name, &value, &length) == 0 ? value : nil
    }
    guard option(SO_TYPE) == CInt(SOCK_STREAM.rawValue) else { return nil }
    if option(SO_ACCEPTCONN) == 1 { return .listening }
    var address = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let result = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(raw, $0, &length) }
    }
    return result == 0 ? .connected : nil
  }

  /// What a stream socket is for.
  public enum StreamSocket: Sendable {
    case connected, listening
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

extension OwnedDescriptor {
  /// MFD_CLOEXEC of memfd_create(2).
  private static let closeOnExec: CUnsignedInt = 1

  /// An empty file in memory, to read and write, which no folder has and which goes with its last descriptor; close-on-exec.
  ///
  /// - Parameter name: what /proc shows, behind `memfd:`.
  public static func inMemory(_ name: String) throws(SystemdError) -> OwnedDescriptor {
    let raw = memfd_create(name, closeOnExec)
    guard raw >= 0 else { throw .last("memfd_create") }
    return OwnedDescriptor(owning: raw)
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
    let raw = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard raw >= 0 else { throw .last("socket") }
    let connection = OwnedDescriptor(owning: raw)
    try connection.connect(to: path)
    return connection
  }

  /// Connects a UNIX socket.
  ///
  /// - Parameter isName: the path, without its first letter, is no path but a name that is in no folder (unix(7)).
  func connect(to path: FilePath, isName: Bool = false) throws(SystemdError) {
    guard try Self.withAddress(path, "connect", isName: isName, { Glibc.connect(raw, $0, $1) }) == 0 else { throw .last("connect") }
  }

  /// Gives a UNIX socket its path.
  func bind(to path: FilePath) throws(SystemdError) {
    guard try Self.withAddress(path, "bind", { Glibc.bind(raw, $0, $1) }) == 0 else { throw .last("bind") }
  }

  private static func withAddress(
    _ path: FilePath, _ call: String, isName: Bool = false, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt
  ) throws(SystemdError) -> CInt {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    var bytes = Array(path.string.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { throw SystemdError(call, .fileNameTooLong) }
    var length = MemoryLayout<sockaddr_un>.size
    // A name begins with a NUL, and is as long as the address says.
    if isName, !bytes.isEmpty {
      bytes[0] = 0
      length = MemoryLayout<sockaddr_un>.offset(of: \.sun_path).map { $0 + bytes.count } ?? length
    }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(length)) }
    }
  }

  /// The path that the other end of a connected UNIX socket is bound to, if it is.
  public var peerPath: FilePath? {
    var address = sockaddr_un()
    var length = socklen_t(MemoryLayout<sockaddr_un>.size)
    let result = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(raw, $0, &length) }
    }
    guard result == 0, address.sun_family == sa_family_t(AF_UNIX) else { return nil }
    let bytes = withUnsafeBytes(of: address.sun_path) { path in path.prefix { $0 != 0 } }
    return bytes.isEmpty ? nil : FilePath(String(decoding: bytes, as: UTF8.self))
  }
}
