import SystemdEvent
import TestSupport
import Testing

@testable import Bridge

@Suite(.onEventLoop, .serialized)
struct TurnsTests {
  @Test("first come, first served; who gives up or goes takes no turn from those behind") @EventLoopActor
  func order() async throws {
    let turns = Turns(limit: 1)
    await turns.begin()
    var order: [String] = []
    let over = Promise<Void>()
    func enter(_ name: String, _ body: @escaping @EventLoopActor () async -> Bool) {
      startTask {
        let isThere = await body()
        order.append(isThere ? name : "no " + name)
        if order.count == 4 { over.fulfil() }
      }
    }
    var gone: (() -> Void)?
    enter("a") {
      await turns.begin()
      return true
    }
    enter("late") { await turns.begin(within: .milliseconds(1)) { _ in } }
    enter("gone") { await turns.begin(within: .seconds(60)) { gone = $0 } }
    enter("b") { await turns.begin(within: .seconds(60)) { _ in } }
    while turns.waitingCount < 4 { await Task.yield() }
    gone?()
    while order.count < 2 { _ = await Promise<Void>().value(within: .milliseconds(1)) }
    #expect(Set(order) == ["no late", "no gone"] && turns.waitingCount == 2)
    turns.end()
    turns.end()
    try await over.soon("the last turn")
    #expect(order.suffix(2) == ["a", "b"])
    #expect(turns.waitingCount == 0)
    turns.end()
    #expect(await turns.begin(within: .seconds(60)) { _ in })
  }
}
