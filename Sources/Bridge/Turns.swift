import SystemdEvent

/// So many at once; the others wait, first come first served.
@EventLoopActor
final class Turns {
  private var limit: Int
  private var taken = 0
  private var waiting: [Promise<Void>] = []
  /// Called when one has to wait.
  var onWait: (() -> Void)?

  init(limit: Int) { self.limit = limit }

  /// How many wait.
  var waitingCount: Int { waiting.count }

  /// Waits for a turn. It is to be ended.
  func begin() async {
    if taken < limit, waiting.isEmpty {
      taken += 1
      return
    }
    let turn = Promise<Void>()
    waiting.append(turn)
    onWait?()
    await turn.value
  }

  /// Ends a turn.
  func end() {
    taken -= 1
    admit()
  }

  /// Lets everybody pass from now on.
  func open() {
    limit = .max
    admit()
  }

  private func admit() {
    while taken < limit, !waiting.isEmpty {
      taken += 1
      waiting.removeFirst().fulfil()
    }
  }
}
