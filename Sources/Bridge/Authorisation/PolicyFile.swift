import Glibc
public import SystemPackage
import SystemdEvent

/// Reads a policy from where the administrator keeps it.
public enum PolicyFile {
  /// Where it is unless the command line says otherwise. It need not be there.
  public static let standardPath: FilePath = "/etc/qmp-varlink/policy"

  /// Why a file cannot be used, with its path.
  public struct Failure: Error, CustomStringConvertible {
    public let description: String
  }

  /// - Parameters:
  ///   - path: the file; nil for the standard one, which may be missing: then nothing is granted.
  ///   - owner: the user that the daemon runs as.
  public static func read(_ path: FilePath?, owner: UInt32) throws(Failure) -> Policy {
    let file = path ?? standardPath
    let raw = file.withPlatformString { open($0, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) }
    guard raw >= 0 else {
      if path == nil, errno == ENOENT { return Policy(owner: owner) }
      throw Failure(description: "\(SystemdError.last("cannot open the policy \(file)"))")
    }
    let descriptor = OwnedDescriptor(owning: raw)
    var status = stat()
    guard fstat(descriptor.raw, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      throw Failure(description: "the policy \(file) is not a file")
    }
    guard status.st_uid == 0 || status.st_uid == owner, status.st_mode & 0o022 == 0 else {
      throw Failure(description: "the policy \(file) could be written by others than root and the daemon's user")
    }
    // One byte more than is taken, to tell a file that is too long.
    var text = [UInt8](repeating: 0, count: PolicyText.longest + 1)
    var count = 0
    while count < text.count {
      let part = text.withUnsafeMutableBytes { Glibc.read(descriptor.raw, $0.baseAddress?.advanced(by: count), $0.count - count) }
      if part == 0 { break }
      guard part > 0 || errno == EINTR else { throw Failure(description: "\(SystemdError.last("cannot read the policy \(file)"))") }
      count += max(0, part)
    }
    do throws(PolicyText.Fault) {
      return try PolicyText.policy(Array(text[..<count]), owner: owner, names: .system)
    } catch {
      throw Failure(description: "\(file), \(error)")
    }
  }
}

extension PolicyText.Names {
  /// The system's own. To ask may take a while where names come over the network.
  static var system: Self { Self(user: { getpwnam($0)?.pointee.pw_uid }, group: { getgrnam($0)?.pointee.gr_gid }) }
}
