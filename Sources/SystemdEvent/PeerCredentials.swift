import Glibc
import SystemPackage

/// Who is at the other end of a connection, as the kernel told when it was made (SO_PEERCRED). What is not known is nil.
public struct PeerCredentials: Sendable, Equatable {
  public let user: UInt32?
  public let group: UInt32?
  public let process: Int32?

  public init(user: UInt32?, group: UInt32?, process: Int32?) {
    self.user = user
    self.group = group
    self.process = process
  }

  /// Those of a connected socket. Only AF_UNIX has any.
  public init(of socket: borrowing OwnedDescriptor) {
    var credentials = KernelCredentials()
    var length = socklen_t(MemoryLayout<KernelCredentials>.size)
    // A process that cannot be seen from here has id 0.
    guard getsockopt(socket.raw, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0, credentials.pid > 0 else {
      self.init(user: nil, group: nil, process: nil)
      return
    }
    self.init(user: credentials.uid, group: credentials.gid, process: credentials.pid)
  }

  /// The groups of the process at the other end of a socket beside its first, as they were when it connected (SO_PEERGROUPS); none
  /// if that is not known.
  public static func supplementaryGroups(of socket: CInt) -> [UInt32] {
    var groups: [gid_t] = []
    // The kernel says how much room it needs. A process has 65536 groups at most.
    var length = socklen_t(0)
    while getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, &groups, &length) != 0 {
      let count = Int(length) / MemoryLayout<gid_t>.size
      guard errno == ERANGE, count > groups.count else { return [] }
      groups = [gid_t](repeating: 0, count: count)
    }
    return Array(groups.prefix(Int(length) / MemoryLayout<gid_t>.size))
  }

  /// The process that connected to a socket, as a pidfd, close-on-exec (SO_PEERPIDFD).
  ///
  /// - Throws: `ESRCH` when it is no more; `ENOPROTOOPT` before Linux 6.5.
  public static func process(of socket: CInt) throws(SystemdError) -> OwnedDescriptor {
    var descriptor: CInt = -1
    var length = socklen_t(MemoryLayout<CInt>.size)
    guard getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &descriptor, &length) == 0 else {
      // Some kernels say EINVAL of a process that was reaped.
      guard errno != EINVAL else { throw SystemdError("SO_PEERPIDFD", Errno(rawValue: ESRCH)) }
      throw .last("SO_PEERPIDFD")
    }
    return OwnedDescriptor(owning: descriptor)
  }

  /// `struct ucred` of unix(7), which Glibc's module does not have.
  private struct KernelCredentials {
    var pid: pid_t = 0
    var uid: uid_t = 0
    var gid: gid_t = 0
  }
}
