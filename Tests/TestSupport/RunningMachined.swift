import Glibc
public import SystemPackage
public import SystemdEvent

/// A systemd-machined that runs for one test, where nobody else sees it.
@EventLoopActor
public final class RunningMachined {
  /// What is `/run` to it, and to those that are inside.
  public let run: FilePath
  private let process: Int32

  init(run: FilePath, process: Int32) {
    self.run = run
    self.process = process
  }

  /// What a command begins with that runs where machined does.
  public var launcher: [String] {
    let own = getuid() == 0 ? [] : ["--user", "--preserve-credentials"]
    return ["nsenter"] + own + ["--mount", "--target", "\(process)"]
  }

  /// Runs a program where machined does, with a bound on its time.
  public func command(_ program: String, _ arguments: [String]) async throws -> CommandResult {
    try await TestSupport.command("timeout", ["60"] + launcher + [program] + arguments)
  }
}

/// Runs systemd-machined by a script, and `body` once machined said READY=1. Then it is asked to stop.
@EventLoopActor
public func withMachined<Result: Sendable>(
  _ script: FilePath, _ body: @escaping @EventLoopActor (RunningMachined) async throws -> Result
) async throws -> Result {
  try await withTemporaryDirectory { folder in
    let run = folder.appending("run")
    return try await withReadyProcess([script.string, run.string], folder) { process, _, _ in
      try await body(RunningMachined(run: run, process: process))
    }.result
  }
}
