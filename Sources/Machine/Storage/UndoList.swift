import Logging
import QMP
import SystemdEvent
import SystemdJSON

/// What takes back the steps of an operation that have succeeded so far.
@EventLoopActor
struct UndoList {
  private var commands: [QMPCommand] = []

  /// Notes the command that takes back a step.
  mutating func append(_ command: QMPCommand) { commands.append(command) }

  /// Takes everything back, the last step first.
  ///
  /// - Returns: false if QEMU did not answer, and it must be seen later what there is.
  func run(_ control: ControlMonitor, _ logger: Logger) async -> Bool {
    guard !commands.isEmpty else { return true }
    let results = await control.pipeline(commands.reversed())
    if results.isUncertain { return false }
    for failure in results.compactMap(\.failure) { logger.warning("could not take back a step: \(failure)") }
    return true
  }
}

extension [Result<JSONVariant, QMPError>] {
  /// The first command's failure, of those that failed: what follows in the list may have failed for it.
  var firstFailure: QMPError? { lazy.compactMap(\.failure).first }

  /// Whether nobody knows what became of some of the commands.
  var isUncertain: Bool { contains { $0.failure?.isUncertain == true } }
}
