/// The isolation of everything that touches libsystemd, the VM or a session: the thread of ``EventLoop/shared``.
///
/// There is one loop and one thread in this process, so isolation is a property of types rather than of instances: two
/// objects of this actor call each other without `await`.
@globalActor
public actor EventLoopActor {
  public static let shared = EventLoopActor()

  public nonisolated var unownedExecutor: UnownedSerialExecutor { EventLoop.shared.asUnownedSerialExecutor() }

  /// Runs `body` at once, as code of this actor. For callbacks from C, which come on the loop's thread without the
  /// compiler's knowing it; traps on any other thread.
  public static nonisolated func assumeIsolated<Value>(
    _ body: @EventLoopActor () throws -> Value
  ) rethrows -> Value {
    EventLoop.shared.checkIsolated()
    // The standard library has this for MainActor only, and does it in the same way: the isolation that the cast takes
    // off is the one that was checked in the line above.
    return try withoutActuallyEscaping(body) { body in
      try unsafeBitCast(body, to: (() throws -> Value).self)()
    }
  }
}
