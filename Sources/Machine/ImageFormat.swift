import Glibc

/// The formats of disk images that are told apart by looking.
public enum ImageFormat: String, Sendable, CaseIterable {
  case raw
  case qcow2

  /// Looks at the first bytes of an open file. Everything without another format's mark is raw.
  init(of file: CInt) {
    var beginning = [UInt8](repeating: 0, count: Qcow2.magic.count)
    self = pread(file, &beginning, beginning.count, 0) == beginning.count && beginning == Qcow2.magic ? .qcow2 : .raw
  }
}
