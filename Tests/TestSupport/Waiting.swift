public import SystemdEvent

/// A bound for tests that would hang, far above what a loaded machine needs.
public let patience = Duration.seconds(180)

/// What was waited for did not come.
public struct NeverCame: Error, CustomStringConvertible {
  public let description: String
  public init(description: String) { self.description = description }
}

extension Promise {
  /// The value, of which the test is certain that it comes.
  public func soon(_ what: String = "a value") async throws -> Value {
    guard let value = await value(within: patience) else { throw NeverCame(description: "\(what) never came") }
    return value
  }
}

/// Waits until the loop has nothing to do: everything that can move without the test has moved.
@EventLoopActor
public func quiet() async throws {
  let idle = Promise<Void>()
  let source = try EventSource.whenIdle { idle.fulfil() }
  try await idle.soon("an idle loop")
  withExtendedLifetime(source) {}
}
