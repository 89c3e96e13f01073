import Glibc

/// A user that QEMU runs as in place of root.
///
/// The user is taken on before QEMU is there, not by QEMU's `-run-with user=`: that comes after its sandbox, which then ends it, and
/// undoes that it ends with its parent (the kernel forgets that with each change of user).
public struct QEMUUser: Sendable, Equatable {
  public let name: String
  let id: UInt32
  let group: UInt32

  /// - Parameter text: a name, or a number that a user has.
  /// - Returns: nil if there is no such user, or it is root.
  public init?(_ text: String) {
    guard let entry = UInt32(text).map({ getpwuid($0) }) ?? getpwnam(text), entry.pointee.pw_uid != 0 else { return nil }
    name = String(cString: entry.pointee.pw_name)
    id = entry.pointee.pw_uid
    group = entry.pointee.pw_gid
  }

  /// What becomes the user with its groups, and then the program whose command line follows.
  var launcher: [String] {
    [
      "setpriv", "--reuid=\(id)", "--regid=\(group)", "--init-groups", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all",
      "--no-new-privs",
    ]
  }
}
