import SystemdEvent
import TestSupport
import Testing

@Suite(.onEventLoop) struct EventLoopTests {
  @Test("isolated code runs on the loop's thread") @EventLoopActor
  func isolation() async {
    #expect(EventLoop.shared.isCurrent)
    await Task.yield()
    #expect(EventLoop.shared.isCurrent)
  }

  @Test("a peer gets what the other end of a pair wrote") @EventLoopActor
  func peers() async throws {
    let pair = try SocketPair()
    let theirs = try pair.theirs.duplicate()
    let one = try Peer(pair.takeOurs())
    let other = try Peer(theirs)
    try await one.write("hello")
    try await other.wait(for: "hello")
    one.close()
    try await other.waitForEnd()
  }
}
