import SystemdEvent
import TestSupport
import Testing

@Suite(.onEventLoop) struct PromiseTests {
  @Test("a value that is there is given at once") @EventLoopActor
  func before() async {
    let promise = Promise<Int>()
    #expect(promise.result == nil)
    promise.fulfil(1)
    #expect(promise.result == 1)
    #expect(await promise.value == 1)
    #expect(await promise.value(within: .zero) == 1)
  }

  @Test("all who wait get the value, in the order in which they came") @EventLoopActor
  func several() async {
    let promise = Promise<String>()
    var given: [String] = []
    let tasks = (0..<5).map { number in startTask { given.append("\(number) \(await promise.value)") } }
    // The last of them waits when this one is begun.
    await startTask {}.value
    #expect(given == [])
    promise.fulfil("x")
    for task in tasks { await task.value }
    #expect(given == ["0 x", "1 x", "2 x", "3 x", "4 x"])
  }

  @Test("only the first value counts") @EventLoopActor
  func second() async {
    let promise = Promise<Int>()
    promise.fulfil(1)
    promise.fulfil(2)
    #expect(await promise.value == 1)
  }

  @Test("a value that comes within the limit is given") @EventLoopActor
  func inTime() async {
    let promise = Promise<Int>()
    startTask { promise.fulfil(3) }
    #expect(await promise.value(within: patience) == 3)
  }

  @Test("nothing is given at the limit, and the value can come later") @EventLoopActor
  func late() async {
    let promise = Promise<Int>()
    #expect(await promise.value(within: .milliseconds(1)) == nil)
    #expect(await promise.value(within: .seconds(-1)) == nil)
    promise.fulfil(4)
    #expect(await promise.value(within: .milliseconds(1)) == 4)
  }
}
