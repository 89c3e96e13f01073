import QEMUJSON
import Simulator
import SystemdEvent
import TestSupport
import Testing

/// The expected replies are QEMU 11.1.2's; ``SimulatorConformanceTests`` has it confirm them.
@Suite("a monitor's conversation", .onEventLoop) struct QMPTests {
  static let notNegotiated = SimulatedClient.refusal("Expecting capabilities negotiation with 'qmp_capabilities'", class: "CommandNotFound")

  @Test("greeting, then nothing but capabilities, once") @EventLoopActor
  func negotiation() async throws {
    let simulation = try Simulation()
    let client = simulation.main
    #expect(try await client.line() == SimulatedClient.greeting)
    for command in ["query-name", "nope"] { #expect(try await client.execute(command) == Self.notNegotiated) }
    #expect(
      try await client.execute("qmp_capabilities", #"{"enable":["nope"]}"#)
        == SimulatedClient.refusal("Parameter 'null' does not accept value 'nope'"))
    #expect(try await client.execute("query-name") == Self.notNegotiated)
    #expect(try await client.execute("qmp_capabilities") == SimulatedClient.done)
    #expect(
      try await client.ask(#"{"execute":"qmp_capabilities","id":7}"#)
        == #"{"id": 7, "error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}}"#)
    #expect(try await client.execute("query-name") == #"{"return": {"name": "test"}}"#)
  }

  @Test(
    "ids of every type come back as QEMU spells them",
    arguments: [
      ("1", "1"), ("-1.5e3", "-1500"), (#""a b""#, #""a b""#), ("null", "null"), ("true", "true"), (#"[1,{"a":[ ]}]"#, #"[1, {"a": []}]"#),
      (#"{"z":1,"b":1}"#, #"{"b": 1, "z": 1}"#), (#""é\u00e9""#, #""\u00E9\u00E9""#), ("1e400", "inf"),
      ("18446744073709551615", "18446744073709551615"), ("'x'", #""x""#),
    ])
  @EventLoopActor
  func ids(sent: String, told: String) async throws {
    let client = try await Simulation.negotiated().main
    #expect(try await client.ask(#"{"id":\#(sent),"execute":"query-name"}"#) == #"{"return": {"name": "test"}, "id": \#(told)}"#)
    #expect(
      try await client.ask(#"{"execute":"nope","id":\#(sent)}"#)
        == #"{"id": \#(told), "error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}}"#)
  }

  @Test("the bytes may come in any pieces, or all at once") @EventLoopActor
  func chunks() async throws {
    let text = #"{"execute":"qmp_capabilities"} {'execute':'query-name','id':1}[]{"execute":"query-status"}"# + "\n"
    let expected = [
      SimulatedClient.greeting, SimulatedClient.done, #"{"return": {"name": "test"}, "id": 1}"#,
      SimulatedClient.refusal("QMP input must be a JSON object"), #"{"return": {"status": "running", "running": true}}"#,
    ]
    for chunks in chunkings(Array(text.utf8)) {
      let client = try Simulation().main
      for chunk in chunks { try await client.peer.write(chunk) }
      #expect(try await client.lines(5) == expected)
    }
  }

  @Test("a half-closed connection gets all its replies, then its end") @EventLoopActor
  func halfClose() async throws {
    let simulation = try Simulation()
    let client = simulation.main
    try await client.send(#"{"execute":"qmp_capabilities"}{"execute":"query-qmp-schema"}{"execute":"query-name"}"#)
    client.peer.endWriting()
    try await client.peer.waitForEnd()
    let lines = try await client.lines(4)
    #expect(lines[2].utf8.count > 200_000 && lines[3] == #"{"return": {"name": "test"}}"#)
    #expect(try QObject(parsing: lines[2])["return"]?.elements?.contains { $0["name"] == "query-status" } == true)
  }

  @Test("of what a client sent before it closed, nothing is executed") @EventLoopActor
  func closed() async throws {
    let simulation = try await Simulation.negotiated()
    try await simulation.main.send(#"{"execute":"stop"}"#)
    simulation.main.peer.close()
    try await quiet()
    #expect(simulation.qemu.commands.map(\.name) == ["qmp_capabilities"])
    #expect(simulation.qemu.monitorStates.map(\.isConnected) == [false])
  }

  @Test("a pretty monitor prints over several lines, events and the greeting too") @EventLoopActor
  func pretty() async throws {
    let simulation = try Simulation(isPretty: true)
    try await simulation.main.send(#"{"execute":"qmp_capabilities"}{"execute":"stop","id":[1,{}]}"#)
    let event =
      "{\r\n    \"timestamp\": {\r\n        \"seconds\": 1000,\r\n        \"microseconds\": 0\r\n    },\r\n    \"event\": \"STOP\"\r\n}\r\n"
    let reply = "{\r\n    \"return\": {\r\n    },\r\n    \"id\": [\r\n        1,\r\n        {\r\n        }\r\n    ]\r\n}\r\n"
    try await simulation.main.peer.wait(for: event + reply)
    #expect(simulation.main.peer.text.hasPrefix("{\r\n    \"QMP\": {\r\n"))
  }

  @Test("a client that reads nothing is given up at the limit; others are not held up") @EventLoopActor
  func unread() async throws {
    let simulation = try await Simulation.negotiated { $0.longestUnsent = 1 << 20 }
    let slow = try await simulation.hotplug("slow")
    slow.peer.reads = false
    for _ in 0..<10 {
      // It may be over before all is written.
      try? await slow.send(#"{"execute":"query-qmp-schema"}"#)
      #expect(try await simulation.main.execute("query-name") == #"{"return": {"name": "test"}}"#)
    }
    try await quiet()
    #expect(simulation.qemu.monitorStates.map(\.isConnected) == [true, false])
  }

  @Test("query-commands tells what there is", arguments: SimulatedQEMU.Dialect.allCases) @EventLoopActor
  func commands(dialect: SimulatedQEMU.Dialect) async throws {
    let simulation = try await Simulation.negotiated { configuration in
      configuration.dialect = dialect
      configuration.script = (try? Script(parsing: #"{"execute":"query-block","return":[]}"#)) ?? Script()
    }
    let reply = try QObject(parsing: try await simulation.main.execute("query-commands"))
    let names = Set(reply["return"]?.elements?.compactMap { $0["name"]?.string } ?? [])
    #expect(
      names.isSuperset(of: ["qmp_capabilities", "query-commands", "getfd", "chardev-add", "object-add", "query-block", "migrate-pause"]))
    for name in ["monitor-add", "monitor-remove", "query-monitors"] { #expect(names.contains(name) == (dialect == .monitorAdd)) }
    // All of them can be called.
    for name in names where !["quit", "x-simulator-block"].contains(name) {
      #expect(try await !simulation.main.execute(name).contains("has not been found"))
      _ = try await simulation.main.rest()
    }
  }
}
