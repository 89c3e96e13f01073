import Glibc
import Machine
import QMP
import SystemdEvent
import SystemdJSON

/// Which events a subscriber gets.
@EventLoopActor
struct EventFilter {
  /// Nil lets all pass.
  private let patterns: [String]?

  /// - Parameter parameter: null or an empty array for all; else names, or patterns of names as a shell has them.
  init(_ parameter: JSONVariant?) {
    let patterns = parameter?.elements?.compactMap(\.string) ?? []
    self.patterns = patterns.isEmpty ? nil : patterns
  }

  func passes(_ name: String) -> Bool { patterns?.contains { $0 == name || fnmatch($0, name, 0) == 0 } ?? true }

  /// Jobs that the daemon has QEMU run on its own account are nobody else's business.
  func passes(_ event: QMPEvent) -> Bool {
    if event.name == "JOB_STATUS_CHANGE", event.data?["id"]?.string?.hasPrefix(Monitors.prefix) == true { return false }
    return passes(event.name)
  }
}
