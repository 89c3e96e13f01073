import Glibc
import Synchronization
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

  @Test("isolated code runs on the loop's thread, even if it never waits") @EventLoopActor
  func synchronousIsolation() {
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

  @Test("other threads are not the loop's")
  func elsewhere() async {
    #expect(await onAnotherThread { EventLoop.shared.isCurrent } == false)
  }

  @Test("what many threads enqueue runs, all of it, in each one's order")
  func manyThreads() async throws {
    let record = Record()
    await withTaskGroup(of: Void.self) { group in
      for source in 0..<8 {
        group.addTask { @concurrent in
          // One after the other, so that the order is known.
          for number in 0..<500 { await record.add(source, number) }
        }
        // All at once, so that the queue is full.
        for number in 0..<500 {
          group.addTask { @concurrent in await record.add(100 + source, number) }
        }
      }
    }
    let seen = await record.seen
    for source in 0..<8 {
      #expect(seen[source] == Array(0..<500))
      #expect(seen[100 + source]?.sorted() == Array(0..<500))
    }
    #expect(await record.wasOffLoop == 0)
  }

  @EventLoopActor
  final class Record {
    nonisolated init() {}
    private(set) var seen: [Int: [Int]] = [:]
    private(set) var wasOffLoop = 0
    func add(_ source: Int, _ number: Int) {
      seen[source, default: []].append(number)
      if !EventLoop.shared.isCurrent { wasOffLoop += 1 }
    }
  }

  @Test("tasks started in a row begin in that order") @EventLoopActor
  func order() async {
    var begun: [Int] = []
    let tasks = (0..<3000).map { number in startTask { begun.append(number) } }
    for task in tasks { await task.value }
    #expect(begun == Array(0..<3000))
  }

  @Test("a task is on the loop again after it waited for something elsewhere") @EventLoopActor
  func resumption() async {
    let task = startTask {
      let elsewhere = await onAnotherThread { EventLoop.shared.isCurrent }
      #expect(!elsewhere)
      #expect(EventLoop.shared.isCurrent)
      // The children's own code and what has no isolation at all stay as well.
      await withTaskGroup(of: Bool.self) { group in
        for _ in 0..<10 { group.addTask { EventLoop.shared.isCurrent } }
        for await isCurrent in group { #expect(isCurrent) }
      }
    }
    await task.value
  }

  @Test("descriptors get their turn although tasks never run out") @EventLoopActor
  func fairness() async throws {
    let (ours, theirs) = try socketPair()
    let peer = try Peer(OwnedDescriptor(owning: ours))
    let stop = Promise<Void>()
    let busy = startTask { while stop.result == nil { await Task.yield() } }
    close(theirs)
    try await peer.waitForEnd()
    stop.fulfil()
    await busy.value
  }

  @Test("code that says it is on the loop and is not ends the process")
  func offLoop() async {
    await #expect(processExitsWith: .failure) { EventLoopActor.assumeIsolated {} }
    await #expect(processExitsWith: .failure) {
      OnEventLoop.start()
      EventLoopActor.assumeIsolated {}
    }
    await #expect(processExitsWith: .success) {
      try await inOwnProcess { EventLoopActor.assumeIsolated {} }
    }
  }

  @Test("a loop runs once, and ends with the status that it is told")
  func exit() async {
    await #expect(processExitsWith: .exitCode(7)) {
      startTask { EventLoop.shared.exit(7) }
      Glibc.exit(try EventLoop.shared.run())
    }
  }
}

/// What `body` gives on a thread of the system's.
private func onAnotherThread(_ body: @escaping @Sendable () -> Bool) async -> Bool { await Task.detached { body() }.value }
