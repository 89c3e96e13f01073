import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing
import Varlink

@testable import QAPI

/// Random values that the schema permits, there and back again.
@Suite("values of the QEMU at hand come back as they were", .onEventLoop) struct RoundTripTests {
  private static let rounds = 12

  @Test("arguments of every command", arguments: [UInt64(1), 2, 3]) @EventLoopActor
  func arguments(seed: UInt64) async throws {
    let schema = try await SchemaReader.read(InstalledQEMU.schemaReply())
    let translation = try await InstalledQEMU.translation()
    var values = RandomValue(schema: schema, random: SplitMix(seed: seed))
    for command in translation.commands {
      let type = try #require(schema.commands.first { $0.name == command.name }).argumentType
      for _ in 0..<Self.rounds {
        let value = try values.value(of: type)
        do {
          let varlink = try translation.varlink(value, .structure(command.input))
          let back = try translation.arguments(of: command, varlink) ?? .object([])
          #expect(back == value, "\(command.name): \(varlink)")
        } catch { Issue.record("\(command.name): \(error), of \(value)") }
      }
    }
  }

  @Test("results of every command, and data of every event") @EventLoopActor
  func results() async throws {
    let schema = try await SchemaReader.read(InstalledQEMU.schemaReply())
    let translation = try await InstalledQEMU.translation()
    var values = RandomValue(schema: schema, random: SplitMix(seed: 4))
    for command in translation.commands {
      let type = try #require(schema.commands.first { $0.name == command.name }).returnType
      for _ in 0..<Self.rounds {
        let value = try values.value(of: type)
        let output = try translation.output(of: command, value)
        let back =
          switch command.output {
          case .structure(let index): try translation.qapi(output, .structure(index))
          case .value(let shape): try translation.qapi(#require(output["return"]), shape)
          }
        #expect(back == value, "\(command.name): \(output)")
      }
    }
    for event in translation.events {
      let type = try #require(schema.events.first { $0.name == event.name }).dataType
      for _ in 0..<Self.rounds {
        let value = try values.value(of: type)
        #expect(try translation.qapi(translation.payload(of: event, value), event.shape) == value, "\(event.name)")
      }
    }
  }

  @Test("libsystemd, which checks calls by the interface's text, takes them") @EventLoopActor
  func checkedByLibsystemd() async throws {
    let schema = try await SchemaReader.read(InstalledQEMU.schemaReply())
    let translation = try await InstalledQEMU.translation()
    let folder = try TemporaryFolder()
    let info = VarlinkServer.Info(vendor: "test", product: "test", version: "1")
    let server = try VarlinkServer(info) { VarlinkError("test.Odd", .object(["reason": .string("\($0)")])) }
    try server.add(VarlinkInterface(parsing: translation.text, kinds: ["SubscribeEvents": .more]))
    let expected = Expected()
    for command in translation.commands {
      try server.bind("\(translation.interface).\(command.method)") { call in
        let arguments = try translation.arguments(of: command, call.parameters) ?? .object([])
        if arguments != expected.arguments { throw NeverCame(description: "\(arguments)") }
        return nil
      }
    }
    let socket = folder.path.appending("socket")
    try server.listen(on: socket, mode: 0o600)
    try server.serve()
    let client = TestSupport.VarlinkPeer(try Peer(.connected(to: socket)))
    var values = RandomValue(schema: schema, random: SplitMix(seed: 5))
    for command in translation.commands {
      let value = try values.value(of: #require(schema.commands.first { $0.name == command.name }).argumentType)
      expected.arguments = value
      let parameters = try translation.varlink(value, .structure(command.input)).text
      let reply = try await client.call("\(translation.interface).\(command.method)", parameters)
      #expect(reply == "{}", "\(command.name) \(parameters)")
    }
  }
}

/// What the next call is to bring.
@EventLoopActor
private final class Expected {
  var arguments: JSONVariant?
}
