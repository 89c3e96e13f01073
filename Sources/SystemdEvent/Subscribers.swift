/// Those who are called with each value that is published, in the order in which they came.
@EventLoopActor
public final class Subscribers<Value> {
  private final class Subscriber {
    let number: Int
    /// Nil once it is gone: it may be while a value is on its way to those before it.
    var handler: ((Value) -> Void)?
    init(_ number: Int, _ handler: @escaping (Value) -> Void) {
      self.number = number
      self.handler = handler
    }
  }

  private var all: [Subscriber] = []
  private var next = 0

  public init() {}

  /// Calls `handler` with each value from now on, until ``remove(_:)``.
  ///
  /// - Returns: what the subscription is called.
  public func add(_ handler: @escaping (Value) -> Void) -> Int {
    next += 1
    all.append(Subscriber(next, handler))
    return next
  }

  /// Ends a subscription, at once. One that has ended is left alone.
  public func remove(_ subscription: Int) {
    guard let index = all.firstIndex(where: { $0.number == subscription }) else { return }
    all[index].handler = nil
    all.remove(at: index)
  }

  /// Calls all who are there now; who comes meanwhile gets the next value.
  public func publish(_ value: Value) {
    for subscriber in all { subscriber.handler?(value) }
  }
}
