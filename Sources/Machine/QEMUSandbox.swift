import Glibc

/// QEMU's own seccomp filter.
enum QEMUSandbox {
  /// What none of a machine's devices needs in QEMU: those that are programs are started by us, and storage comes by descriptors. To
  /// start programs is what a script or a helper of the user's own arguments may need.
  static func arguments(besides own: [String]) -> [String] {
    let spawning = ["tap", "bridge", "smb=", "guestfwd=", "script=", "helper=", "exec:"]
    // Of the C library, since a search by characters takes as long as all else before the start.
    let maySpawn = own.contains { argument in spawning.contains { strstr(argument, $0) != nil } }
    return ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,resourcecontrol=deny\(maySpawn ? "" : ",spawn=deny")"]
  }

  /// Whether the user says it otherwise.
  static func isSaid(in arguments: [String]) -> Bool { arguments.contains { $0 == "-sandbox" || $0 == "--sandbox" } }

  /// Whether it is that what a QEMU did not take, by what it said.
  static func isRefused(_ lastWords: [String]) -> Bool {
    lastWords.contains { line in
      // Not any mention of it, which may be of a file.
      [": -sandbox", "seccomp is not compiled", "seccomp syscall filter"].contains { line.contains($0) }
    }
  }
}
