import SystemdEvent

/// Runs `body` on the event loop of a process that has nothing else to do: the body of an exit test, where the traits of
/// suites do not count.
public func inOwnProcess(_ body: @escaping @EventLoopActor @Sendable () async throws -> Void) async throws {
  OnEventLoop.start()
  try await onLoop(body)
}

@EventLoopActor
private func onLoop(_ body: @EventLoopActor @Sendable () async throws -> Void) async throws { try await body() }
