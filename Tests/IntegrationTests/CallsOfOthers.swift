import Foundation
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

extension RunningDaemon {
  /// Makes calls as another user, each on a connection of its own.
  ///
  /// - Returns: what became of each: `ok`, the error's name, `closed`, or `no connection`.
  func outcomes(of calls: [String], as user: Int, _ groups: [Int] = []) async throws -> [String] {
    let script = try #require(Bundle.module.path(forResource: "calls", ofType: "py", inDirectory: "Clients"))
    // The checkout may be where others cannot look.
    let copy = directory.appending("calls.py")
    if !FilePath.exists(copy) {
      try FileManager.default.copyItem(atPath: script, toPath: copy.string)
      _ = try await command("chmod", ["644", copy.string])
    }
    let membership = groups.isEmpty ? "--clear-groups" : "--groups=\(groups.map(String.init).joined(separator: ","))"
    let result = try await command(
      "setpriv",
      ["--reuid=\(user)", "--regid=\(user)", membership, "/usr/bin/python3", copy.string, socket.string],
      input: calls.map { $0 + "\n" }.joined())
    guard result.status == 0 else { throw RunningDaemon.Failure("status \(result.status): \(result.error)") }
    return result.output.split(separator: "\n").map(String.init)
  }
}
