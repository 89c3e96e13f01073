import CSystemd
import Glibc

/// Runs `body` on a thread that is made for it and ends with it, while the loop goes on.
///
/// The global pool would do it too, and keep its threads and descriptors afterwards.
@EventLoopActor
public func onOwnThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
  try await withCheckedThrowingContinuation { continuation in
    let work = Work { continuation.resume(with: Result { try body() }) }
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, CInt(PTHREAD_CREATE_DETACHED))
    var thread = pthread_t()
    // Retained until the thread has taken it over.
    let retained = Unmanaged.passRetained(work)
    let result = pthread_create(&thread, &attributes, runWork, retained.toOpaque())
    // No thread is to be had: the loop does it itself.
    if result != 0 { retained.takeRetainedValue().run() }
  }
}

private final class Work: Sendable {
  let run: @Sendable () -> Void
  init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

/// The new thread's first function. A closure in the function above would belong to the loop's actor, and be stopped for that.
private nonisolated func runWork(_ work: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  if let work { Unmanaged<Work>.fromOpaque(work).takeRetainedValue().run() }
  return nil
}
