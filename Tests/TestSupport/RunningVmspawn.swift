import Glibc
import Subprocess
public import SystemPackage
import SystemdEvent

/// Runs systemd-vmspawn by a script, and `body` with its process id once its machine has its disk. Then it is asked to stop, if it has not ended.
///
/// - Returns: what `body` returned, and vmspawn's exit status.
@EventLoopActor
public func withVmspawn<Result: Sendable>(
  _ script: FilePath, _ arguments: [String], in folder: FilePath, _ body: @escaping @EventLoopActor (Int32) async throws -> Result
) async throws -> (result: Result, status: Int32) {
  let logFile = folder.appending("log")
  let log = try FileDescriptor.open(logFile, .writeOnly, options: [.create, .append], permissions: [.ownerReadWrite])
  defer { try? log.close() }
  let outcome = try await run(
    .path(script), arguments: Arguments(arguments), environment: .inherit,
    input: .none, output: .fileDescriptor(log, closeAfterSpawningProcess: false),
    error: .fileDescriptor(log, closeAfterSpawningProcess: false)
  ) { execution in
    let process = execution.processIdentifier.value
    let result = await finish(process, logFile, body)
    kill(process, SIGTERM)
    return result
  }
  return (try outcome.closureResult.get(), outcome.terminationStatus.shellStatus)
}

@EventLoopActor
private func finish<Result: Sendable>(
  _ process: Int32, _ log: FilePath, _ body: @EventLoopActor (Int32) async throws -> Result
) async -> Swift.Result<Result, any Error> {
  do {
    // It tells nobody else that it serves: READY=1 is for a service manager that it knows.
    let up = try await command("timeout", ["60", "sh", "-c", "tail -n +1 -F \(log) 2>/dev/null | grep -qm1 ' attached'"])
    guard up.status == 0 else {
      throw RunningDaemon.Failure("systemd-vmspawn did not get ready:\n\(contents(of: log))")
    }
    return .success(try await body(process))
  } catch {
    print("systemd-vmspawn's log:\n\(contents(of: log))")
    return .failure(error)
  }
}
