import Glibc
import Logging
import SystemPackage
import SystemdEvent

/// A program beside QEMU that serves one of its devices, over a socket between the two. It ends when QEMU does: the socket tells it.
@EventLoopActor
struct DeviceProgram {
  /// Swtpm or virtiofsd, for the log.
  let name: String
  /// The option that it was started for, as the user wrote it.
  let option: String
  let process: ChildProcess

  /// The first of `places` where there is such a program; those without a slash are looked for on PATH.
  static func find(
    _ places: [String], path: String = getenv("PATH").map { String(cString: $0) } ?? "/usr/local/bin:/usr/bin:/bin"
  ) -> String? {
    for place in places {
      let candidates = place.contains("/") ? [place] : path.split(separator: ":").map { "\($0)/\(place)" }
      if let found = candidates.first(where: { access($0, X_OK) == 0 }) { return found }
    }
    return nil
  }

  /// What to do with each line that a program prints.
  static func log(of name: String, _ logger: Logger) -> (String) -> Void {
    // Virtiofsd tells of all that it does.
    let level: Logger.Level = name == "virtiofsd" ? .debug : .info
    return { logger.log(level: level, "\($0)", metadata: ["source": "\(name)"]) }
  }

  /// How long after QEMU's complaint about its device it may end.
  private static let patience = Duration.milliseconds(500)

  /// Why it failed, in its own words, if it has or is about to. One that ended because QEMU did has not.
  func complaint() async -> String? {
    guard let status = await process.ended.value(within: Self.patience), status != .exited(0) else { return nil }
    return "\(name) \(status): \(process.lastWords.suffix(3).joined(separator: "; "))"
  }
}
