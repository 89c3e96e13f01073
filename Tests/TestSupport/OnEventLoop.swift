import Foundation
import SystemdEvent
public import Testing

/// Has the process's event loop run on a thread of its own before a test begins, so that tests can be isolated to
/// `EventLoopActor`. The thread ends with the process.
public struct OnEventLoop: TestTrait, SuiteTrait, TestScoping {
  public var isRecursive: Bool { true }

  private static let started: Void = {
    let thread = Thread {
      _ = try? EventLoop.shared.run()
    }
    thread.name = "event loop"
    thread.start()
  }()

  /// Starts the loop, unless it runs.
  public static func start() { started }

  public func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @concurrent @Sendable () async throws -> Void
  ) async throws {
    Self.start()
    try await function()
  }
}

extension Trait where Self == OnEventLoop {
  /// The test needs the event loop to run.
  public static var onEventLoop: OnEventLoop { OnEventLoop() }
}
