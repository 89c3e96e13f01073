import SystemdEvent

/// So many at once; the others wait, first come first served.
@EventLoopActor
final class Turns {
  private var limit: Int
  private var taken = 0
  private var waiting: [Promise<Bool>] = []
  /// Called when one has to wait.
  var onWait: (() -> Void)?

  init(limit: Int) { self.limit = limit }

  /// How many wait.
  var waitingCount: Int { waiting.count }

  /// Waits for a turn. It is to be ended.
  func begin() async { _ = await wait() { _ in } }

  /// Waits for a turn, but no longer than `limit`, nor longer than until the handler that `whenGone` takes is called.
  ///
  /// - Returns: whether it is there. Then it is to be ended.
  func begin(within limit: Duration, orUntil whenGone: (@escaping () -> Void) -> Void) async -> Bool {
    await wait { turn in
      whenGone { turn.fulfil(false) }
      let timer = try? EventSource.timer(after: limit) { turn.fulfil(false) }
      turn.whenFulfilled { _ in withExtendedLifetime(timer) {} }
    }
  }

  private func wait(_ begun: (Promise<Bool>) -> Void) async -> Bool {
    if taken < limit, waiting.isEmpty {
      taken += 1
      return true
    }
    let turn = Promise<Bool>()
    waiting.append(turn)
    begun(turn)
    onWait?()
    let isThere = await turn.value
    waiting.removeAll { $0 === turn }
    return isThere
  }

  /// Has a turn that was begun in the run of the daemon before. It is to be ended.
  func goOn() { taken += 1 }

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
      let turn = waiting.removeFirst()
      // One that has given up has not been taken out yet.
      guard turn.result == nil else { continue }
      taken += 1
      turn.fulfil(true)
    }
  }
}
