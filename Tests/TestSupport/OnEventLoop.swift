import Dispatch
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
    let watchdog = DispatchWorkItem {
      // What the tests printed may still be in a buffer.
      fflush(nil)
      FileHandle.standardError.write(Data("\"\(test.name)\" did not end within \(Int(Self.limit) / 60) minutes\n".utf8))
      abort()
    }
    // On a thread of its own: what hangs may hold the tasks' threads.
    DispatchQueue.global().asyncAfter(deadline: .now() + Self.limit, execute: watchdog)
    defer { watchdog.cancel() }
    try await function()
  }

  /// Seconds that a test case may take. One that hangs then ends the run, with its name, rather than holding it for ever; the
  /// longest take two minutes, and more only when a variable asks for it.
  private static let limit = Double(ProcessInfo.processInfo.environment["QMP_VARLINK_TEST_LIMIT"] ?? "") ?? 900
}

extension Trait where Self == OnEventLoop {
  /// The test needs the event loop to run.
  public static var onEventLoop: OnEventLoop { OnEventLoop() }
}
