/// A value that comes once, and that any number of tasks and handlers may wait for.
///
/// Waiting does not end with the waiter's cancellation: a promise is for things that always come, such as the end of a
/// process or of a session.
@EventLoopActor
public final class Promise<Value: Sendable> {
  /// The value, once it came.
  public private(set) var result: Value?
  private var waiters: [(id: Int, resume: (Value) -> Void)] = []
  private var lastWaiter = 0

  public init() {}

  /// Hands the value to those who wait, in the order in which they came, and to those who will. Only the first call counts.
  public func fulfil(_ value: Value) {
    guard result == nil else { return }
    result = value
    let waiting = waiters
    waiters = []
    for waiter in waiting { waiter.resume(value) }
  }

  /// The value; suspends until it is there.
  public var value: Value {
    get async {
      if let result { return result }
      return await withCheckedContinuation { continuation in whenFulfilled { continuation.resume(returning: $0) } }
    }
  }

  /// The value, or nil if it did not come within `limit`.
  public func value(within limit: Duration) async -> Value? {
    if let result { return result }
    var timer: EventSource?
    defer { withExtendedLifetime(timer) {} }
    return await withCheckedContinuation { (continuation: CheckedContinuation<Value?, Never>) in
      let waiter = whenFulfilled { continuation.resume(returning: $0) }
      let expire: @EventLoopActor () -> Void = { [self] in if forget(waiter) { continuation.resume(returning: nil) } }
      timer = try? EventSource.timer(after: limit, handler: expire)
      // Without a timer (out of memory) the limit counts as passed.
      if timer == nil { expire() }
    }
  }

  /// Calls `handler` with the value when it comes; at once, if it has.
  ///
  /// - Returns: what ``forget(_:)`` takes, for those who do not want to know any more.
  @discardableResult
  public func whenFulfilled(_ handler: @escaping (Value) -> Void) -> Int {
    lastWaiter += 1
    if let result { handler(result) } else { waiters.append((lastWaiter, handler)) }
    return lastWaiter
  }

  /// Lets go of a handler.
  ///
  /// - Returns: whether it was still waiting.
  @discardableResult
  public func forget(_ waiter: Int) -> Bool {
    guard let index = waiters.firstIndex(where: { $0.id == waiter }) else { return false }
    waiters.remove(at: index)
    return true
  }
}

extension Promise where Value == Void {
  /// ``fulfil(_:)`` for a promise whose coming is all there is to know.
  public func fulfil() { fulfil(()) }
}
