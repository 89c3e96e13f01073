import Glibc
public import SystemPackage
import SystemdEvent

/// Puts `bytes` into a file: all of them, or nothing has happened.
///
/// - Throws: `SystemdError`.
public func replaceFile(_ path: FilePath, with bytes: [UInt8]) throws {
  var template = Array("\(path).\(String(repeating: "X", count: 6))".utf8CString)
  let raw = mkstemp(&template)
  guard raw >= 0 else { throw SystemdError.last("cannot make \(path)") }
  let file = OwnedDescriptor(owning: raw)
  do {
    // mkstemp(3) makes it for its owner alone; others may have what the user lets them have of any file.
    let mask = umask(0)
    umask(mask)
    guard fchmod(file.raw, 0o666 & ~mask) == 0 else { throw SystemdError.last("cannot make \(path)") }
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { write(file.raw, $0.baseAddress, $0.count) }
      guard count >= 0 || errno == EINTR else { throw SystemdError.last("cannot write \(path)") }
      rest = rest.dropFirst(max(0, count))
    }
    guard rename(template, path.string) == 0 else { throw SystemdError.last("cannot make \(path)") }
  } catch {
    unlink(template)
    throw error
  }
}
