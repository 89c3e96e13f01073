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
    // It gives up at a time of its own, perhaps before the next one has come.
    let gaveUp = Promise<Void>()
    enter("late") {
      let hasTurn = await turns.begin(within: .milliseconds(1)) { _ in }
      gaveUp.fulfil()
      return hasTurn
    }
    let left = Promise<Void>()
    enter("gone") {
      let hasTurn = await turns.begin(within: .seconds(60)) { gone = $0 }
      left.fulfil()
      return hasTurn
    }
    enter("b") { await turns.begin(within: .seconds(60)) { _ in } }
    try await gaveUp.soon("the end of its patience")
    try await quiet()
    #expect(turns.waitingCount == 3)
    gone?()
    try await left.soon("the end of who goes")
    try await quiet()
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
