import Glibc
import SystemdEvent
import TestSupport
import Testing

@Suite(.onEventLoop) struct OwnThreadTests {
  struct Odd: Error {}

  @Test("work on a thread of its own gives its result, or its error, and leaves no thread behind") @EventLoopActor
  func work() async throws {
    let loop = pthread_self()
    for number in 0..<20 {
      #expect(try await onOwnThread { pthread_equal(pthread_self(), loop) == 0 ? number : -1 } == number)
      await #expect(throws: Odd.self) { try await onOwnThread { throw Odd() } }
    }
  }
}
