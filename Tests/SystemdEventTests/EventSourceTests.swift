import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite(.onEventLoop) struct EventSourceTests {
  @Test("timers fire once each") @EventLoopActor
  func timers() async throws {
    var fired: [Int] = []
    let last = Promise<Void>()
    let sources = try [30, 10, 20, 0].map { delay in
      try EventSource.timer(after: .milliseconds(delay)) {
        fired.append(delay)
        if fired.count == 4 { last.fulfil() }
      }
    }
    #expect(fired == [])
    try await last.soon()
    try await quiet()
    #expect(fired.sorted() == [0, 10, 20, 30])
    withExtendedLifetime(sources) {}
  }

  @Test("a timer that is let go of does not fire") @EventLoopActor
  func droppedTimer() async throws {
    var fired = false
    let later = Promise<Void>()
    var dropped: EventSource? = try EventSource.timer(after: .milliseconds(1)) { fired = true }
    let source = try EventSource.timer(after: .milliseconds(20)) { later.fulfil() }
    #expect(dropped != nil)
    dropped = nil
    try await later.soon()
    #expect(!fired)
    withExtendedLifetime(source) {}
  }

  @Test("a handler may let go of its own source, and is let go of with it") @EventLoopActor
  func droppedInHandler() async throws {
    final class Token {}
    var source: EventSource?
    let fired = Promise<Void>()
    weak var token: Token?
    do {
      let kept = Token()
      token = kept
      source = try EventSource.timer(after: .zero) {
        withExtendedLifetime(kept) { source = nil }
        fired.fulfil()
      }
    }
    #expect(token != nil)
    try await fired.soon()
    try await quiet()
    #expect(source == nil && token == nil)
  }

  @Test("what is idle comes after all that can be done") @EventLoopActor
  func whenIdle() async throws {
    var order: [String] = []
    let over = Promise<Void>()
    let idle = try EventSource.whenIdle {
      order.append("idle")
      over.fulfil()
    }
    let (ours, theirs) = try socketPair()
    write(theirs, "x", 1)
    let readable = try EventSource.descriptor(ours, .readable) { _ in
      var byte: UInt8 = 0
      read(ours, &byte, 1)
      order.append("read")
      startTask { order.append("task") }
    }
    try await over.soon()
    #expect(order == ["read", "task", "idle"])
    readable.isEnabled = false
    withExtendedLifetime((idle, readable)) {}
    close(ours)
    close(theirs)
  }

  @Test("a descriptor is watched for what is asked, and for its end always") @EventLoopActor
  func interest() async throws {
    let (ours, theirs) = try socketPair()
    var seen: [Readiness] = []
    let changed = Promise<Void>()
    let ended = Promise<Void>()
    let source = try EventSource.descriptor(ours, []) { ready in
      seen.append(ready)
      if ready.contains(.hangUp) { ended.fulfil() } else { changed.fulfil() }
    }
    write(theirs, "x", 1)
    try await quiet()
    #expect(seen == [])
    source.interest = .writable
    try await changed.soon()
    #expect(seen.first == .writable)
    source.interest = []
    try await quiet()
    seen = []
    source.interest = .readable
    source.isEnabled = false
    try await quiet()
    #expect(seen == [])
    source.interest = []
    source.isEnabled = true
    close(theirs)
    try await ended.soon()
    #expect(seen.first == .hangUp)
    source.isEnabled = false
    withExtendedLifetime(source) {}
    close(ours)
  }

  @Test("a descriptor that cannot be watched is an error") @EventLoopActor
  func unwatchable() throws {
    let folder = try TemporaryFolder()
    let file = open(try folder.file("plain", [1]).string, O_RDONLY | O_CLOEXEC)
    #expect(throws: SystemdError("sd_event_add_io", .notPermitted)) { _ = try EventSource.descriptor(file, .readable) { _ in } }
    close(file)
  }

  @Test(
    "the end of a child is told as it was",
    arguments: [
      ("exit 3", SystemdEvent.ExitStatus.exited(3)), ("exit 0", .exited(0)), ("kill -TERM $$", .signaled(SIGTERM)),
      ("kill -KILL $$", .signaled(SIGKILL)),
    ])
  @EventLoopActor
  func child(script: String, status: SystemdEvent.ExitStatus) async throws {
    let process = try spawn(script)
    let ended = Promise<SystemdEvent.ExitStatus>()
    let source = try EventSource.child(process) { ended.fulfil($0) }
    #expect(try await ended.soon() == status)
    // It is reaped once the handler is done.
    try await quiet()
    #expect(waitpid(process, nil, WNOHANG) == -1 && errno == ECHILD)
    withExtendedLifetime(source) {}
  }

  @Test("many children at once are told apart") @EventLoopActor
  func children() async throws {
    let ends = try (0..<20).map { number in
      let ended = Promise<SystemdEvent.ExitStatus>()
      let process = try spawn("exit \(number)")
      return (ended, try EventSource.child(process) { ended.fulfil($0) })
    }
    for (number, (ended, _)) in ends.enumerated() { #expect(try await ended.soon() == .exited(CInt(number))) }
    withExtendedLifetime(ends) {}
  }

  @Test("how a child ended is told in words")
  func words() {
    #expect("\(SystemdEvent.ExitStatus.exited(3))" == "exited with status 3")
    #expect("\(SystemdEvent.ExitStatus.signaled(9))" == "was killed by signal 9")
  }

  private func spawn(_ script: String) throws -> pid_t {
    var process: pid_t = 0
    let words: [UnsafeMutablePointer<CChar>?] = ["/bin/sh", "-c", script].map { (word: String) in strdup(word) } + [nil]
    defer { for word in words { free(word) } }
    // Threads of the test program block signals.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    let result = posix_spawn(&process, "/bin/sh", nil, &attributes, words, environ)
    guard result == 0 else { throw SystemdError("posix_spawn", Errno(rawValue: result)) }
    return process
  }
}
