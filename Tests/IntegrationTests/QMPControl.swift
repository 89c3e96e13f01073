import Glibc
import Subprocess
import SystemPackage
import SystemdEvent
import TestSupport

/// Runs qmpctl to its end, with the machines of one folder.
@EventLoopActor
func qmpctl(
  _ arguments: [String], in folder: FilePath, environment: [String: String] = [:]
) async throws -> CommandResult {
  try await command(
    qmpctlProgram, arguments,
    environment: ["QMPCTL_PATH": folder.string, "NO_COLOR": ""].merging(environment) { $1 })
}

/// Where qmpctl is.
var qmpctlProgram: String { productsDirectory.appending("qmpctl").string }

/// Runs qmpctl, with `body` reading what it prints, and then ends it by a signal if it still runs.
///
/// - Returns: what `body` returned, the exit status, and what it said on standard error.
@EventLoopActor
func withQMPControl<Result: Sendable>(
  _ arguments: [String], in folder: FilePath, environment: [String: String] = [:], signal: CInt = SIGINT,
  _ body: @escaping @EventLoopActor (Peer, Int32) async throws -> Result
) async throws -> (result: Result, status: Int32, error: String) {
  let updates: [Environment.Key: String?] = Dictionary(
    uniqueKeysWithValues: environment.merging(["QMPCTL_PATH": folder.string]) { $1 }.map { (Environment.Key(stringLiteral: $0), $1) })
  let pair = try SocketPair()
  // A copy, which the start of the program closes here.
  let given = FileDescriptor(rawValue: try pair.theirs.duplicate().take())
  let peer = try Peer(pair.takeOurs())
  let outcome = try await run(
    .path(FilePath(qmpctlProgram)), arguments: Arguments(arguments), environment: .inherit.updating(updates), input: .none,
    output: .fileDescriptor(given, closeAfterSpawningProcess: true), error: .string(limit: 1 << 20)
  ) { execution in
    let process = execution.processIdentifier.value
    let result: Swift.Result<Result, any Error>
    do { result = .success(try await body(peer, process)) } catch { result = .failure(error) }
    kill(process, signal)
    return result
  }
  return (try outcome.closureResult.get(), outcome.terminationStatus.shellStatus, outcome.standardError)
}

/// A folder of machines that has one, `web`.
@EventLoopActor
func withMachine(
  _ arguments: [String] = bareMachine, _ body: @escaping @EventLoopActor (FilePath, RunningDaemon) async throws -> Void
) async throws {
  try await withTemporaryDirectory { folder in
    _ = try await withDaemon(arguments, directory: folder.appending("web")) { daemon in try await body(folder, daemon) }
  }
}
