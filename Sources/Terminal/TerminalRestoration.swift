import Glibc
import Synchronization

/// Gives a terminal back as it was, however this process ends, but for SIGKILL: when ``undo()`` is called, when it exits, and when a
/// signal ends it. The signal does what it would have done after that.
enum TerminalRestoration {
  struct Saved {
    var settings = termios()
    var input: CInt = -1
    var output: CInt = -1
    /// What ends what was begun on the terminal.
    var farewell: StaticString = ""
  }

  // Unsafe, as what a signal's handler reads must be: written by `prepare` only, while `isDue` is false and the handler does not look.
  nonisolated(unsafe) private static let saved = {
    let saved = UnsafeMutablePointer<Saved>.allocate(capacity: 1)
    saved.initialize(to: Saved())
    return saved
  }()
  private static let isDue = Atomic<Bool>(false)

  /// The signals that end a process that does nothing about them, and that one gets from a person, from the system or from itself.
  private static let deadly = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV]

  /// What each of them did before, by its number.
  // Unsafe for the same reason: written before the handler is set.
  nonisolated(unsafe) private static let former = {
    let former = UnsafeMutablePointer<sigaction>.allocate(capacity: Int(deadly.max() ?? 0) + 1)
    former.initialize(repeating: sigaction(), count: Int(deadly.max() ?? 0) + 1)
    return former
  }()

  private static let handlersAreSet: Void = {
    atexit { TerminalRestoration.undo() }
    for number in deadly {
      sigaction(number, nil, former + Int(number))
      // What is ignored, as under nohup, stays so. The handler of Swift's runtime, which tells of a crash, comes after this one.
      guard unsafeBitCast(former[Int(number)].__sigaction_handler.sa_handler, to: Int.self) != 1 else { continue }
      signal(number) { number in
        TerminalRestoration.undo()
        sigaction(number, TerminalRestoration.former + Int(number), nil)
        raise(number)
      }
    }
  }()

  /// Announces a change of the terminal.
  static func prepare(_ restored: Saved) {
    undo()
    saved.pointee = restored
    handlersAreSet
    isDue.store(true, ordering: .sequentiallyConsistent)
  }

  /// Takes back what was announced, once. Calls nothing that a signal's handler may not call.
  static func undo() {
    guard isDue.exchange(false, ordering: .sequentiallyConsistent) else { return }
    _ = write(saved.pointee.output, saved.pointee.farewell.utf8Start, saved.pointee.farewell.utf8CodeUnitCount)
    tcsetattr(saved.pointee.input, TCSADRAIN, &saved.pointee.settings)
  }
}
