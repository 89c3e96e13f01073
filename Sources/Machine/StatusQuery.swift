import QMP
import SystemdEvent
import SystemdJSON

/// Asks for the run state on behalf of everybody who wants to know.
///
/// QEMU answers some two and a half thousand short commands a second on one monitor, however they are sent, and many callers
/// ask for the same. Those who ask while a question is on its way share the next one: an answer may be older than its
/// question was sent, so the one under way is not for them. Nobody is told a state from before the call.
@EventLoopActor
final class StatusQuery {
  typealias Answer = Result<JSONVariant, QMPError>

  private let control: ControlMonitor
  private var isUnderWay = false
  /// For those who wait for the question after the one under way.
  private var next: Promise<Answer>?

  init(_ control: ControlMonitor) { self.control = control }

  /// The reply to a `query-status` that is sent after this call.
  func ask() async throws(QMPError) -> JSONVariant {
    guard isUnderWay else {
      isUnderWay = true
      let answer = await question()
      if next == nil { isUnderWay = false } else { startTask { await self.askForOthers() } }
      return try answer.get()
    }
    let shared = next ?? Promise()
    next = shared
    return try await shared.value.get()
  }

  private func askForOthers() async {
    while let shared = next {
      next = nil
      shared.fulfil(await question())
    }
    isUnderWay = false
  }

  private func question() async -> Answer { await control.pipeline([QMPCommand("query-status")])[0] }
}
