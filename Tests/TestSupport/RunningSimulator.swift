import Glibc
import Subprocess
public import SystemPackage
public import SystemdEvent

/// A `qmp-simulator` that runs for one test, with a monitor at a path of its own.
@EventLoopActor
public final class RunningSimulator {
  /// Where its monitor listens.
  public let path: FilePath
  /// A folder of the test's own.
  public let folder: FilePath
  public let process: Int32
  private let logFile: FilePath

  init(path: FilePath, folder: FilePath, process: Int32, logFile: FilePath) {
    self.path = path
    self.folder = folder
    self.process = process
    self.logFile = logFile
  }

  /// What it said on standard error.
  public var log: String { contents(of: logFile) }

  public func connect() throws -> Peer { try Peer(.connected(to: path)) }

  public func signal(_ signal: CInt) { kill(process, signal) }
}

/// Runs a simulator with these arguments and `--listen`, and `body` once it said READY=1. Then it is asked to stop, if it has not ended.
///
/// - Returns: what `body` returned, the simulator's exit status and what it said on standard error.
@EventLoopActor
public func withSimulator<Result: Sendable>(
  _ arguments: [String] = [], _ body: @escaping @EventLoopActor (RunningSimulator) async throws -> Result
) async throws -> (result: Result, status: Int32, log: String) {
  try await withTemporaryDirectory { folder in
    let readiness = try NotifySocket(at: folder.appending("notify"))
    let logFile = folder.appending("log")
    let log = try FileDescriptor.open(logFile, .writeOnly, options: [.create, .append], permissions: [.ownerReadWrite])
    defer { try? log.close() }
    let path = folder.appending("qmp")
    let outcome = try await run(
      .path(productsDirectory.appending("qmp-simulator")), arguments: Arguments(["--listen", path.string] + arguments),
      environment: .inherit.updating(["NOTIFY_SOCKET": readiness.path.string]), input: .none,
      output: .fileDescriptor(log, closeAfterSpawningProcess: false), error: .fileDescriptor(log, closeAfterSpawningProcess: false)
    ) { execution in
      let simulator = RunningSimulator(path: path, folder: folder, process: execution.processIdentifier.value, logFile: logFile)
      return await finish(simulator, readiness, body)
    }
    return (try outcome.closureResult.get(), outcome.terminationStatus.shellStatus, contents(of: logFile))
  }
}

@EventLoopActor
private func finish<Result: Sendable>(
  _ simulator: RunningSimulator, _ readiness: NotifySocket, _ body: @EventLoopActor (RunningSimulator) async throws -> Result
) async -> Swift.Result<Result, any Error> {
  defer { simulator.signal(SIGTERM) }
  guard await readiness.ready.value(within: patience) != nil else {
    return .failure(NeverCame(description: "READY=1, but \(simulator.log)"))
  }
  do { return .success(try await body(simulator)) } catch { return .failure(error) }
}
