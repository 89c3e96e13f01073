import SystemdEvent

/// A question that many callers may have at once. One is asked at a time, and all who come meanwhile share the next: nobody
/// gets an answer that was given before it came.
@EventLoopActor
final class SharedQuery<Answer: Sendable> {
  private let ask: @EventLoopActor () async -> Answer
  private var isUnderWay = false
  /// For those who came while it was under way.
  private var next: Promise<Answer>?

  init(_ ask: @escaping @EventLoopActor () async -> Answer) { self.ask = ask }

  /// The answer to a question that is asked now, or when the one under way has been answered.
  func answer() async -> Answer {
    if isUnderWay {
      let next = next ?? Promise()
      self.next = next
      return await next.value
    }
    isUnderWay = true
    let answer = await ask()
    proceed()
    return answer
  }

  private func proceed() {
    guard let next else {
      isUnderWay = false
      return
    }
    self.next = nil
    startTask {
      next.fulfil(await self.ask())
      self.proceed()
    }
  }
}
