/// A value that comes once, and that any number of tasks may wait for.
///
/// Waiting does not end with the waiter's cancellation: a promise is for things that always come, such as the end of a
/// process or of a session.
@EventLoopActor
public final class Promise<Value: Sendable> {
  /// The value, once it came.
  public private(set) var result: Value?
  private var waiters: [CheckedContinuation<Value, Never>] = []

  public init() {}

  /// Hands the value to those who wait and to those who will. Only the first call counts.
  public func fulfil(_ value: Value) {
    guard result == nil else { return }
    result = value
    let waiting = waiters
    waiters = []
    for waiter in waiting { waiter.resume(returning: value) }
  }

  /// The value; suspends until it is there.
  public var value: Value {
    get async {
      if let result { return result }
      return await withCheckedContinuation { waiters.append($0) }
    }
  }

  /// The value, or nil if it did not come within `limit`.
  public func value(within limit: Duration) async -> Value? {
    if let result { return result }
    let outcome = Promise<Value?>()
    let timer = try? EventSource.timer(after: limit) { outcome.fulfil(nil) }
    // Without a timer (out of descriptors) the limit counts as passed.
    if timer == nil { return nil }
    startTask { outcome.fulfil(await self.value) }
    defer { withExtendedLifetime(timer) {} }
    return await outcome.value
  }
}

extension Promise where Value == Void {
  /// ``fulfil(_:)`` for a promise whose coming is all there is to know.
  public func fulfil() { fulfil(()) }
}
