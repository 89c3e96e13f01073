import CSystemd
import Glibc

/// A process, named so that no later process is taken for it: systemd's ProcessId.
public struct ProcessIdentity: Sendable, Equatable {
  public let id: Int32
  /// The inode number of its pidfd, which the kernel gives out once per boot; nil before Linux 6.9.
  public let descriptorInode: UInt64?
  /// Which boot that is, 32 hexadecimal digits; nil if there is no inode number.
  public let boot: String?

  /// Looks at a running process.
  ///
  /// - Throws: `ESRCH` if there is none of that id.
  public init(of process: Int32) throws(SystemdError) {
    id = process
    let raw = pidfd_open(process, 0)
    guard raw >= 0 else { throw .last("pidfd_open") }
    let descriptor = OwnedDescriptor(owning: raw)
    var system = statfs()
    var file = stat()
    var boot = sd_id128_t()
    guard fstatfs(descriptor.raw, &system) == 0, system.f_type == Self.pidfsMagic, fstat(descriptor.raw, &file) == 0,
      sd_id128_get_boot(&boot) >= 0
    else {
      descriptorInode = nil
      self.boot = nil
      return
    }
    descriptorInode = UInt64(file.st_ino)
    self.boot = withUnsafeBytes(of: boot) { bytes in
      bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
  }

  /// PID_FS_MAGIC of the kernel's magic.h. Elsewhere all pidfds share one inode.
  private static let pidfsMagic = 0x5049_4446
}
