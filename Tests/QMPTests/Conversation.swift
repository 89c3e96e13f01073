import SystemdEvent
import SystemdJSON
import TestSupport

@testable import QMP

/// A client, and the far end that the test plays.
@EventLoopActor
struct Conversation {
  let client: QMPClient
  let server: Peer

  nonisolated static let greeting =
    #"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 1, "major": 11}}, "capabilities": ["oob"]}}"# + "\r\n"
  nonisolated static let done = #"{"return": {}}"# + "\r\n"
  nonisolated static let refusal = #"{"error": {"class": "GenericError", "desc": "no"}}"# + "\r\n"

  init() throws {
    let (ours, theirs) = try socketPair()
    client = try QMPClient(OwnedDescriptor(owning: ours))
    server = try Peer(OwnedDescriptor(owning: theirs))
  }

  /// Begins a command, and gives its outcome when it has come.
  func begin(_ command: String, _ arguments: JSONVariant? = nil) -> Promise<Result<JSONVariant, QMPError>> {
    let outcome = Promise<Result<JSONVariant, QMPError>>()
    startTask { outcome.fulfil(await client.pipeline([QMPCommand(command, arguments)])[0]) }
    return outcome
  }

  /// Begins the negotiation.
  func negotiate(within limit: Duration? = nil) -> Promise<Result<Greeting, QMPError>> {
    let outcome = Promise<Result<Greeting, QMPError>>()
    startTask {
      do throws(QMPError) { outcome.fulfil(.success(try await client.negotiate(within: limit))) } catch {
        outcome.fulfil(.failure(error))
      }
    }
    return outcome
  }

  /// Waits until the server has all of these, one behind the other.
  func serverGets(_ commands: String...) async throws {
    let expected = commands.map { #"{"execute":"\#($0)"}"# }.joined()
    try await server.wait(expected) { $0.received.count >= expected.utf8.count }
    guard server.text == expected else { throw NeverCame(description: "\(expected), but \(server.text)") }
  }
}

extension Result where Failure == QMPError {
  /// The error, if it is one.
  var error: QMPError? { if case .failure(let error) = self { error } else { nil } }
}
