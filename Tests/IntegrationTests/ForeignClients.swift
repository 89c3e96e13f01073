import Foundation
import TestSupport

/// Runs a client of ours in Python, which uses somebody else's library.
func python(_ client: String, _ arguments: [String], environment: [String: String] = [:]) async throws -> CommandResult {
  guard let path = Bundle.module.path(forResource: client, ofType: "py", inDirectory: "Clients") else {
    throw RunningDaemon.Failure("no client '\(client)'")
  }
  return try await command("/usr/bin/python3", [path] + arguments, environment: environment)
}
