import Glibc
public import SystemdEvent
public import SystemPackage

/// The formats of disk images that are told apart by looking.
public enum ImageFormat: String, Sendable {
  case raw
  case qcow2

  /// Looks at the file's first bytes. Everything without another format's mark is raw.
  ///
  /// - Throws: why the file can't be read.
  public init(of path: FilePath) throws(SystemdError) {
    let descriptor = path.withPlatformString { open($0, O_RDONLY | O_CLOEXEC) }
    guard descriptor >= 0 else { throw .last("cannot open \(path)") }
    let file = OwnedDescriptor(owning: descriptor)
    var magic: [UInt8] = [0, 0, 0, 0]
    let count = pread(file.raw, &magic, magic.count, 0)
    guard count >= 0 else { throw .last("cannot read \(path)") }
    self = magic == [UInt8(ascii: "Q"), UInt8(ascii: "F"), UInt8(ascii: "I"), 0xFB] ? .qcow2 : .raw
  }
}
