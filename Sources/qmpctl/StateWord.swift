import Control
import SystemdEvent

/// A machine's state in one word, and how good it is.
@EventLoopActor
struct StateWord {
  let word: String?
  let emphasis: Emphasis

  init(_ status: MachineStatus) {
    guard let state = status.state else {
      word = status.problem == nil ? nil : "no-answer"
      emphasis = .bad
      return
    }
    word = state
    emphasis =
      switch state {
      case _ where status.isRunning == true: .good
      case "internal-error", "io-error", "guest-panicked", "unresponsive": .bad
      default: .doubtful
      }
  }

  var cell: Table.Cell { Table.Cell(word, emphasis) }
}
