public import SystemPackage
import SystemdEvent

/// Runs a message bus by a script, and `body` with its address once it said READY=1. Then it is asked to stop.
///
/// - Parameters:
///   - folder: where its socket `bus` is made.
///   - arguments: go behind the folder.
@EventLoopActor
public func withBus<Result: Sendable>(
  _ script: FilePath, in folder: FilePath, _ arguments: [String] = [], _ body: @escaping @EventLoopActor (String) async throws -> Result
) async throws -> Result {
  try await withReadyProcess([script.string, folder.string] + arguments, folder) { _, _, _ in
    try await body("unix:path=\(folder.appending("bus"))")
  }.result
}
