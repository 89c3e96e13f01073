import Bridge
import Glibc
import Machine
import SystemPackage
import SystemdEvent

/// The folder that the control socket is in, held by one daemon at a time.
///
/// The claim is a lock on the folder itself, which ends with its holder, however that ends.
struct RuntimeDirectory: ~Copyable {
  let path: FilePath
  /// Whether the folder was made by us, and goes with us.
  private let isOurs: Bool
  private let descriptor: OwnedDescriptor

  var controlSocket: FilePath { path.appending("control") }

  /// Why a folder cannot be used.
  struct Failure: Error, CustomStringConvertible { let description: String }

  /// Where the folder is, by the rules of the command line.
  static func location(
    machine: MachineName, option: FilePath?, environment: (String) -> String? = { getenv($0).map { String(cString: $0) } },
    scope: RuntimeScope = .own
  ) throws(Failure) -> (path: FilePath, isOurs: Bool) {
    if let option { return (option, false) }
    if let set = environment("RUNTIME_DIRECTORY"), let first = set.split(separator: ":").first { return (FilePath(String(first)), false) }
    let base: FilePath
    if scope == .system {
      base = "/run"
    } else if let runtime = environment("XDG_RUNTIME_DIR"), !runtime.isEmpty {
      base = FilePath(runtime)
    } else {
      throw Failure(description: "XDG_RUNTIME_DIR is not set: set it, or use --runtime-directory")
    }
    return (base.appending("qmp-varlink").appending(machine.description), true)
  }

  /// Makes the folder if need be, and claims it.
  init(_ location: (path: FilePath, isOurs: Bool), machine: MachineName) throws(Failure) {
    path = location.path
    isOurs = location.isOurs
    let longest = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1
    guard location.path.appending("control").string.utf8.count <= longest else {
      throw Failure(description: "\(location.path) is too long: the path of the socket 'control' in it must have at most \(longest) bytes")
    }
    // A daemon that ends removes its folder; one that claimed it in between starts over.
    for _ in 0..<100 {
      try Self.make(location.path)
      let raw = location.path.withPlatformString { open($0, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
      if raw < 0, errno == ENOENT { continue }
      guard raw >= 0 else { throw Failure(description: "\(SystemdError.last("cannot open \(location.path)"))") }
      let descriptor = OwnedDescriptor(owning: raw)
      guard flock(raw, LOCK_EX | LOCK_NB) == 0 else {
        if errno == EWOULDBLOCK {
          throw Failure(description: "machine '\(machine)' is served already: another qmp-varlinkd holds \(location.path)")
        }
        throw Failure(description: "\(SystemdError.last("cannot lock \(location.path)"))")
      }
      var held = stat()
      var named = stat()
      if fstat(raw, &held) == 0, location.path.withPlatformString({ stat($0, &named) }) == 0, held.st_ino == named.st_ino {
        self.descriptor = descriptor
        return
      }
    }
    throw Failure(description: "\(location.path) is being removed again and again")
  }

  /// Removes what we made: the socket, and the folder if it is ours.
  ///
  /// - Parameter withSocket: whether the socket is ours; a service manager goes on listening at its own.
  consuming func remove(withSocket: Bool = true) {
    if withSocket { _ = controlSocket.withPlatformString { unlink($0) } }
    if isOurs { _ = path.withPlatformString { rmdir($0) } }
  }

  private static func make(_ path: FilePath) throws(Failure) {
    var missing: [FilePath] = []
    var folder = path
    while !folder.isEmpty, folder.withPlatformString({ access($0, F_OK) }) != 0 {
      missing.append(folder)
      folder.removeLastComponent()
    }
    for folder in missing.reversed() where folder.withPlatformString({ mkdir($0, 0o755) }) != 0 && errno != EEXIST {
      throw Failure(description: "\(SystemdError.last("cannot make \(folder)"))")
    }
  }
}
