import SystemdEvent
import TestSupport
import Testing

@Suite(.onEventLoop) struct SubscribersTests {
  @Test("each gets each value, in the order in which they came; who goes gets none more, who comes meanwhile the next") @EventLoopActor
  func order() {
    let subscribers = Subscribers<Int>()
    var calls: [String] = []
    var second = 0
    let first = subscribers.add { value in
      calls.append("first \(value)")
      guard value == 1 else { return }
      subscribers.remove(second)
      _ = subscribers.add { calls.append("late \($0)") }
    }
    second = subscribers.add { calls.append("second \($0)") }
    _ = subscribers.add { calls.append("third \($0)") }
    subscribers.publish(0)
    subscribers.publish(1)
    subscribers.remove(first)
    subscribers.remove(first)
    subscribers.publish(2)
    #expect(calls == ["first 0", "second 0", "third 0", "first 1", "third 1", "third 2", "late 2"])
  }
}
