import ArgumentParser
import Control
import Glibc
import SystemdEvent

/// A subcommand, which does its work on the event loop.
protocol ControlCommand: ParsableCommand, Sendable {
  /// Signals that it handles itself. They are blocked before anything else happens.
  static var handledSignals: [CInt] { get }

  /// Does the work.
  ///
  /// - Returns: the exit status.
  /// - Throws: `ControlError`, which is told to the user.
  @EventLoopActor func execute() async throws -> CInt
}

extension ControlCommand {
  static var handledSignals: [CInt] { [] }

  func run() throws {
    // The loop gets these by signalfd, a child's end by pidfd, which wants SIGCHLD blocked.
    var blocked = sigset_t()
    sigemptyset(&blocked)
    for signal in Self.handledSignals + [SIGCHLD] { sigaddset(&blocked, signal) }
    sigprocmask(SIG_BLOCK, &blocked, nil)
    signal(SIGPIPE, SIG_IGN)
    startTask { [self] in EventLoop.shared.exit(await outcome()) }
    let status = try EventLoop.shared.run()
    EventLoopActor.assumeIsolated { ChildProgram.endAll() }
    if status != 0 { throw ExitCode(status) }
  }

  @EventLoopActor private func outcome() async -> CInt {
    do {
      return try await execute()
    } catch is StandardOutput.Closed {
      // Whoever read it has seen enough.
      return 0
    } catch let error as ControlError {
      complain(error)
      return error.kind.rawValue
    } catch {
      complain(ControlError(.failed, "\(error)"))
      return ControlError.Kind.failed.rawValue
    }
  }
}

/// Tells the user on standard error what went wrong.
func complain(_ error: ControlError) {
  let style = Style.standard(isTerminal: isatty(2) == 1)
  let text = "\(style("qmpctl: " + error.message, .bad))\n" + (error.hint.map { "\($0)\n" } ?? "")
  var bytes = Array(text.utf8)[...]
  while !bytes.isEmpty {
    let count = bytes.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
    guard count > 0 else { return }
    bytes = bytes.dropFirst(count)
  }
}
