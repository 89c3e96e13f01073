import SystemdEvent
import TestSupport
import Testing

@testable import Machine

@Suite(.onEventLoop) struct SharedQueryTests {
  /// A question that is answered when the test says, with how many had been asked.
  @EventLoopActor
  final class Question {
    private(set) var asked = 0
    private var waiting: [Promise<Void>] = []
    private(set) lazy var query = SharedQuery { [unowned self] in
      asked += 1
      let number = asked
      let release = Promise<Void>()
      waiting.append(release)
      await release.value
      return number
    }

    /// Has somebody ask; the answer comes into the promise.
    func caller() -> Promise<Int> {
      let answered = Promise<Int>()
      startTask { answered.fulfil(await self.query.answer()) }
      return answered
    }

    func answerOne() { waiting.removeFirst().fulfil() }
  }

  @Test("callers one after the other ask one question each") @EventLoopActor
  func oneByOne() async throws {
    let question = Question()
    for number in 1...3 {
      let caller = question.caller()
      try await quiet()
      question.answerOne()
      #expect(try await caller.soon() == number)
    }
  }

  @Test("those who come while a question is under way share the next, and none gets an older answer") @EventLoopActor
  func shared() async throws {
    let question = Question()
    let first = question.caller()
    try await quiet()
    let second = (1...20).map { _ in question.caller() }
    try await quiet()
    #expect(question.asked == 1)
    question.answerOne()
    #expect(try await first.soon() == 1)
    try await quiet()
    #expect(question.asked == 2 && second.allSatisfy { $0.result == nil })
    let third = (1...5).map { _ in question.caller() }
    try await quiet()
    question.answerOne()
    for caller in second { #expect(try await caller.soon() == 2) }
    try await quiet()
    question.answerOne()
    for caller in third { #expect(try await caller.soon() == 3) }
    #expect(question.asked == 3)
    // At rest again: the next one asks at once.
    let last = question.caller()
    try await quiet()
    question.answerOne()
    #expect(try await last.soon() == 4)
  }
}
