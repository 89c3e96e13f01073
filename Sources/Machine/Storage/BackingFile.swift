import Glibc
import SystemPackage
public import SystemdEvent

/// An open file or block device that is to back a drive. QEMU gets the descriptor, never a path.
@EventLoopActor
public final class BackingFile {
  /// Whether it was opened read-only. QEMU takes a descriptor only for the access that it was opened for.
  let isReadOnly: Bool
  let isBlockDevice: Bool
  /// In bytes.
  let size: Int
  private let descriptor: OwnedDescriptor

  /// O_PATH of open(2), which Glibc's module does not have.
  private nonisolated static let pathOnly: CInt = 0o10_000_000

  /// The number, for a system call while this object lives.
  var raw: CInt { descriptor.raw }

  /// Takes over a descriptor, after a look at what it is.
  ///
  /// - Throws: ``StorageError/unsuitable(_:_:)``: `EISDIR` for folders, `EBADFD` for what is neither a file nor a block device,
  ///   `EBADF` for what was not opened for reading.
  public init(_ descriptor: consuming OwnedDescriptor) throws(StorageError) {
    let raw = descriptor.raw
    var status = stat()
    guard fstat(raw, &status) == 0 else { throw .machine(.system(.last("fstat"))) }
    switch status.st_mode & S_IFMT {
    case S_IFREG: isBlockDevice = false
    case S_IFBLK: isBlockDevice = true
    case S_IFDIR: throw .unsuitable(.isDirectory, "the descriptor is one of a folder")
    default: throw .unsuitable(Errno(rawValue: EBADFD), "the descriptor is neither of a regular file nor of a block device")
    }
    let flags = fcntl(raw, F_GETFL)
    guard flags >= 0, flags & Self.pathOnly == 0, flags & O_ACCMODE != O_WRONLY else {
      throw .unsuitable(.badFileDescriptor, "the descriptor was not opened for reading")
    }
    isReadOnly = flags & O_ACCMODE == O_RDONLY
    if isBlockDevice {
      // Its size is where it ends; the caller's position is put back.
      let position = lseek(raw, 0, SEEK_CUR)
      size = lseek(raw, 0, SEEK_END)
      lseek(raw, position, SEEK_SET)
    } else {
      size = Int(status.st_size)
    }
    self.descriptor = descriptor
  }
}
