import Dispatch
import SystemdEvent

/// Runs `body` on the event loop of a process that has nothing else to do: the body of an exit test, where the traits of
/// suites do not count.
public func inOwnProcess(_ body: @escaping @EventLoopActor @Sendable () async throws -> Void) async throws {
  OnEventLoop.start()
  await openRuntimeTimers()
  try await onLoop(body)
}

@EventLoopActor
private func onLoop(_ body: @EventLoopActor @Sendable () async throws -> Void) async throws { try await body() }

/// Has the runtime open its timers' descriptors now, one for each of its clocks. It does so when it first needs one, in a thread of
/// its own, which on a busy machine may be while a test counts descriptors.
private func openRuntimeTimers() async {
  let moment = DispatchTimeInterval.milliseconds(1)
  await withCheckedContinuation { over in DispatchQueue.global().asyncAfter(deadline: .now() + moment) { over.resume() } }
  await withCheckedContinuation { over in DispatchQueue.global().asyncAfter(wallDeadline: .now() + moment) { over.resume() } }
  try? await Task.sleep(for: .milliseconds(1), clock: .continuous)
  try? await Task.sleep(for: .milliseconds(1), clock: .suspending)
}
