import Simulator
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("the dialects of monitor hotplug", .onEventLoop) struct DialectTests {
  @EventLoopActor
  private static func withChardev(_ dialect: SimulatedQEMU.Dialect, _ id: String = "c") async throws -> Simulation {
    let simulation = try await Simulation.negotiated { $0.dialect = dialect }
    #expect(
      try await simulation.main.execute("chardev-add", #"{"id":"\#(id)","backend":{"type":"null","data":{}}}"#) == SimulatedClient.done)
    return simulation
  }

  @Test("monitor-add: added, listed, removed; again with the same ids") @EventLoopActor
  func monitorAdd() async throws {
    let simulation = try await Self.withChardev(.monitorAdd)
    simulation.qemu.addHumanMonitor("human")
    let fixed =
      #"{"chardev": "main", "mode": "control", "dynamic": false, "id": "main"}, {"chardev": "human", "mode": "readline", "dynamic": false, "id": "human"}"#
    for _ in 0..<2 {
      #expect(try await simulation.main.execute("monitor-add", #"{"id":"m","chardev":"c","pretty":true}"#) == SimulatedClient.done)
      #expect(
        try await simulation.main.execute("query-monitors")
          == #"{"return": [\#(fixed), {"chardev": "c", "mode": "control", "dynamic": true, "id": "m"}]}"#)
      #expect(simulation.qemu.monitorStates.last?.isPretty == true)
      #expect(
        try await simulation.main.execute("monitor-add", #"{"id":"m","chardev":"c"}"#)
          == SimulatedClient.refusal("monitor 'm' already exists"))
      #expect(
        try await simulation.main.execute("monitor-add", #"{"id":"n","chardev":"c"}"#)
          == SimulatedClient.refusal("chardev 'c' is already in use"))
      #expect(try await simulation.main.execute("chardev-remove", #"{"id":"c"}"#) == SimulatedClient.refusal("Chardev 'c' is busy"))
      #expect(try await simulation.main.execute("monitor-remove", #"{"id":"m"}"#) == SimulatedClient.done)
      #expect(try await simulation.main.execute("query-monitors") == #"{"return": [\#(fixed)]}"#)
    }
    for (arguments, refusal) in [
      (#"{"id":"m","chardev":"nope"}"#, #"chardev \"nope\" not found"#), (#"{"id":"m"}"#, "Parameter 'chardev' is missing"),
      (#"{"chardev":"c"}"#, "Parameter 'id' is missing"), (#"{"id":"m","chardev":"c","x":1}"#, "Parameter 'x' is unexpected"),
    ] { #expect(try await simulation.main.execute("monitor-add", arguments) == SimulatedClient.refusal(refusal)) }
    for (id, refusal) in [
      ("nope", "monitor 'nope' not found"), ("main", "monitor 'main' was not added dynamically and cannot be removed"),
      ("human", "monitor 'human' was not added dynamically and cannot be removed"),
    ] { #expect(try await simulation.main.execute("monitor-remove", #"{"id":"\#(id)"}"#) == SimulatedClient.refusal(refusal)) }
    #expect(
      try await simulation.main.execute("object-add", #"{"qom-type":"monitor-qmp","id":"m","chardev":"c"}"#)
        == SimulatedClient.refusal("Parameter 'qom-type' does not accept value 'monitor-qmp'"))
    #expect(try await simulation.main.execute("qom-list-types", #"{"implements":"monitor-qmp"}"#) == #"{"return": []}"#)
  }

  @Test("monitor-add: a monitor that removes itself gets the reply, then its end; one that is removed gets its end") @EventLoopActor
  func selfRemoval() async throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("qmp")
    let simulation = try await Simulation.negotiated { $0.dialect = .monitorAdd }
    #expect(
      try await simulation.main.execute("chardev-add", #"{"id":"c","backend":\#(SimulatedClient.backend(path: path))}"#)
        == SimulatedClient.done)
    for removesItself in [true, false] {
      #expect(try await simulation.main.execute("monitor-add", #"{"id":"m","chardev":"c"}"#) == SimulatedClient.done)
      let client = try SimulatedClient(at: path)
      try await client.negotiate()
      if removesItself {
        try await client.send(#"{"execute":"monitor-remove","arguments":{"id":"m"},"id":1}{"execute":"query-name"}"#)
        #expect(try await client.line() == #"{"return": {}, "id": 1}"#)
      } else {
        #expect(try await simulation.main.execute("monitor-remove", #"{"id":"m"}"#) == SimulatedClient.done)
      }
      try await client.peer.waitForEnd()
      #expect(try await client.rest() == "")
      #expect(simulation.qemu.leftovers == ["chardev 'c'"])
    }
  }

  @Test("objects: a monitor cannot remove itself, HMP cannot be removed, the command line's can") @EventLoopActor
  func objects() async throws {
    let simulation = try await Simulation.negotiated()
    simulation.qemu.addHumanMonitor("human")
    let other = try await simulation.hotplug("other")
    #expect(try await other.execute("object-del", #"{"id":"other"}"#) == SimulatedClient.refusal("Cannot delete the current QMP monitor"))
    #expect(try await other.execute("object-del", #"{"id":"human"}"#) == SimulatedClient.refusal("Deleting HMP monitors is not supported"))
    #expect(try await other.execute("object-del", #"{"id":"main"}"#) == SimulatedClient.done)
    #expect(try await simulation.main.rest() == "")
    try await simulation.main.send(#"{"execute":"query-name"}"#)
    #expect(try await simulation.main.rest() == "" && !simulation.main.peer.hasEnded)
    #expect(try await other.execute("chardev-remove", #"{"id":"main"}"#) == SimulatedClient.done)
    try await simulation.main.peer.waitForEnd()
    #expect(simulation.qemu.monitorStates.map(\.id) == ["human", "other"])
  }

  @Test("close-action can be changed while the monitor is there") @EventLoopActor
  func closeActionLater() async throws {
    let simulation = try await Simulation.negotiated()
    let other = try await simulation.hotplug("other")
    let set = #"{"path":"/objects/other","property":"close-action","value":"delete"}"#
    #expect(try await simulation.main.execute("qom-set", set) == SimulatedClient.done)
    #expect(
      try await simulation.main.execute("qom-get", #"{"path":"/objects/other","property":"close-action"}"#) == #"{"return": "delete"}"#)
    other.peer.close()
    try await quiet()
    #expect(simulation.qemu.leftovers == [])
  }

  @Test("none: there is no way to add a monitor") @EventLoopActor
  func none() async throws {
    let simulation = try await Self.withChardev(.none)
    for command in ["monitor-add", "monitor-remove", "query-monitors"] {
      #expect(
        try await simulation.main.execute(command)
          == SimulatedClient.refusal("The command \(command) has not been found", class: "CommandNotFound"))
    }
    #expect(
      try await simulation.main.execute("object-add", #"{"qom-type":"monitor-qmp","id":"m","chardev":"c"}"#)
        == SimulatedClient.refusal("Parameter 'qom-type' does not accept value 'monitor-qmp'"))
    #expect(try await simulation.main.execute("object-add", #"{"qom-type":"iothread","id":"t"}"#) == SimulatedClient.done)
    #expect(try await simulation.main.execute("qom-list-types", #"{"implements":"monitor-qmp"}"#) == #"{"return": []}"#)
    #expect(
      try await simulation.main.execute("qom-list", #"{"path":"/objects"}"#)
        == #"{"return": [{"name": "type", "type": "string"}, {"name": "t", "type": "child<iothread>"}]}"#)
  }

  @Test("objects are limited in number") @EventLoopActor
  func limit() async throws {
    let simulation = try await Simulation.negotiated { $0.mostObjects = 3 }
    #expect(try await simulation.main.execute("object-add", #"{"qom-type":"iothread","id":"a"}"#) == SimulatedClient.done)
    #expect(
      try await simulation.main.execute("object-add", #"{"qom-type":"iothread","id":"b"}"#)
        == SimulatedClient.refusal("the simulator has no room for more than 3 objects"))
  }
}
