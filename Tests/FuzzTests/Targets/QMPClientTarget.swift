import SystemdEvent
import SystemdJSON
import TestSupport

@testable import QMP

/// A QEMU that answers with anything: every call ends, in the same way wherever the pieces end, and nothing is left.
@EventLoopActor
enum QMPClientTarget {
  static func run(_ input: [UInt8]) async throws {
    var first: [String]?
    for way in pieces(of: input) where way.count < 64 || first == nil {
      let outcome = try await converse(way)
      try demand(first == nil || first == outcome, "whole \(first ?? []), in pieces \(outcome)")
      first = first ?? outcome
    }
  }

  private static func converse(_ pieces: [ArraySlice<UInt8>]) async throws -> [String] {
    let (ours, theirs) = try socketPair()
    let server = try Peer(OwnedDescriptor(owning: theirs))
    let outcome = try await outcome(QMPClient(OwnedDescriptor(owning: ours)), server, pieces)
    server.close()
    return outcome
  }

  private static func outcome(_ client: consuming QMPClient, _ server: Peer, _ pieces: [ArraySlice<UInt8>]) async throws -> [String] {
    var outcome: [String] = []
    client.keepsEventText = true
    client.onEvent = { outcome.append("event \($0.name) \($0.text)") }
    let greeted = Promise<Result<Greeting, QMPError>>()
    startTask { [client] in
      do throws(QMPError) { greeted.fulfil(.success(try await client.negotiate())) } catch { greeted.fulfil(.failure(error)) }
    }
    let answered = Promise<[Result<JSONVariant, QMPError>]>()
    startTask { [client] in answered.fulfil(await client.pipeline((1...3).map { QMPCommand("c\($0)") })) }
    try await server.wait("the commands") { $0.text.contains("c3") }
    var forwarded = 0
    for _ in 0..<2 {
      client.submit(Array(#"{"execute":"s"}"#.utf8)) { result in
        forwarded += 1
        outcome.append("forwarded \((try? result.get()).map { readable($0) } ?? "nothing")")
      }
    }
    for piece in pieces { try? await server.write(piece) }
    server.endWriting()
    guard let end = await client.disconnected.value(within: patience), let greeting = await greeted.value(within: patience),
      let results = await answered.value(within: patience)
    else { throw Violation(description: "a call does not end") }
    try demand(forwarded == 2, "\(forwarded) of 2 forwarded commands came back")
    outcome.append("\(greeting)")
    for result in results {
      switch result {
      case .success(let value): outcome.append(value.text)
      case .failure(let error): outcome.append("\(error)")
      }
    }
    outcome.append("\(end)")
    return outcome
  }
}
