import Glibc
import SystemPackage
import SystemdEvent

/// An open file that several have a hand on, such as the command line that names its number and the start that passes it on.
@EventLoopActor
final class OpenFile {
  let descriptor: OwnedDescriptor

  init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

  /// Opens a file that is there.
  nonisolated static func open(_ path: FilePath, _ flags: CInt) throws(SystemdError) -> OwnedDescriptor {
    let raw = path.withPlatformString { Glibc.open($0, flags | O_CLOEXEC) }
    guard raw >= 0 else { throw .last("cannot open \(path)") }
    return OwnedDescriptor(owning: raw)
  }

  /// Opens a regular file for reading. Of a pipe nobody waits for the other end.
  nonisolated static func openRegular(_ path: FilePath) throws(SystemdError) -> OwnedDescriptor {
    let file = try open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
    var status = stat()
    guard fstat(file.raw, &status) == 0 else { throw .last("cannot read \(path)") }
    switch status.st_mode & S_IFMT {
    case S_IFREG: return file
    case S_IFDIR: throw SystemdError("cannot read \(path)", .isDirectory)
    default: throw SystemdError("cannot read \(path), which is no regular file", .invalidArgument)
    }
  }

  /// The bytes of a regular file. Of nothing else, that nothing is waited for.
  ///
  /// - Throws: `EFBIG` for one that has more than `limit`.
  nonisolated static func contents(of path: FilePath, atMost limit: Int) throws(SystemdError) -> [UInt8] {
    let file = try openRegular(path)
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = read(file.raw, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw .last("cannot read \(path)") }
      if count == 0 { return bytes }
      bytes += buffer[..<count]
      guard bytes.count <= limit else { throw SystemdError("cannot read \(path)", .fileTooLarge) }
    }
  }
}

/// A file without a name, which goes with its last descriptor, and with what ends the process.
enum UnnamedFile {
  /// O_TMPFILE of open(2), which Glibc's module does not have.
  private static let unnamed: CInt = 0o20_200_000

  /// The folder for large temporary files, which have nothing secret.
  static var folder: FilePath { folder { getenv($0).map { String(cString: $0) } } }

  /// The same; a TMPDIR that is no absolute path is none.
  static func folder(environment: (String) -> String?) -> FilePath {
    environment("TMPDIR").flatMap { $0.hasPrefix("/") ? FilePath($0) : nil } ?? "/var/tmp"
  }

  /// Makes one in `folder`, to read and write, for its owner alone.
  static func make(in folder: FilePath) throws(SystemdError) -> OwnedDescriptor {
    var raw = folder.withPlatformString { Glibc.open($0, O_RDWR | O_CLOEXEC | unnamed, 0o600) }
    if raw < 0, errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL {
      // Not every file system can do that.
      var template = folder.temporaryName
      raw = mkstemp(&template)
      if raw >= 0 {
        unlink(template)
        _ = fcntl(raw, F_SETFD, FD_CLOEXEC)
      }
    }
    guard raw >= 0 else { throw .last("cannot make a temporary file in \(folder)") }
    return OwnedDescriptor(owning: raw)
  }

  /// Makes one in memory that has these bytes, which may be secret: no disk gets them, unless the host swaps.
  static func make(_ contents: [UInt8]) throws(SystemdError) -> OwnedDescriptor {
    let file = try OwnedDescriptor.inMemory("qmp-varlink")
    try write(contents, to: file, at: 0)
    return file
  }

  /// Writes all of `bytes`.
  static func write(_ bytes: [UInt8], to file: borrowing OwnedDescriptor, at offset: Int) throws(SystemdError) {
    var written = 0
    while written < bytes.count {
      let count = bytes[written...].withUnsafeBytes { pwrite(file.raw, $0.baseAddress, $0.count, offset + written) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw .last("cannot write to a temporary file") }
      written += count
    }
  }
}

extension FilePath {
  /// A name in this folder as mkstemp(3) and mkdtemp(3) take it: they put one that is free in place of its last six letters.
  var temporaryName: [CChar] { Array(appending("qmp-varlink-" + String(repeating: "X", count: 6)).string.utf8CString) }
}
