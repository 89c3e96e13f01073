import Simulator
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("one dispatcher for all monitors", .onEventLoop) struct DispatcherTests {
  @Test("commands are taken from the monitors in turn, and keep their order on each") @EventLoopActor
  func roundRobin() async throws {
    let simulation = try await Simulation.negotiated(outOfBand: true)
    let other = try await simulation.hotplug("other", negotiated: false)
    try await other.negotiate(outOfBand: true)
    let start = simulation.qemu.commandCount
    var executed: [String] = []
    for number in 1...8 {
      simulation.qemu.at(.beforeExecution, ofCommand: start + number) {
        executed.append(simulation.qemu.commands[start + number - 1].monitor)
      }
    }
    simulation.qemu.block()
    for client in [simulation.main, other] {
      for id in 1...4 { try await client.send(#"{"execute":"query-name","id":\#(id)}"#) }
    }
    try await simulation.qemu.received(start + 8).soon()
    #expect(executed == [])
    simulation.qemu.unblock()
    for client in [simulation.main, other] {
      #expect(try await client.lines(4) == (1...4).map { #"{"return": {"name": "test"}, "id": \#($0)}"# })
    }
    #expect(executed.count == 8 && zip(executed, executed.dropFirst()).allSatisfy { $0 != $1 })
  }

  @Test("a command that blocks holds up every monitor; out of band it is overtaken, and ended") @EventLoopActor
  func outOfBand() async throws {
    let simulation = try await Simulation.negotiated()
    let other = try await simulation.hotplug("other", negotiated: false)
    try await other.negotiate(outOfBand: true)
    try await simulation.main.send(#"{"execute":"x-simulator-block","id":"block"}"#)
    try await quiet()
    try await other.send(#"{"execute":"query-name","id":"in-band"}"#)
    #expect(
      try await other.ask(#"{"exec-oob":"migrate-recover","arguments":{"uri":"x"},"id":"oob"}"#)
        == #"{"id": "oob", "error": {"class": "GenericError", "desc": "Migrate recover can only be run when postcopy is paused."}}"#)
    #expect(
      try await other.ask(#"{"exec-oob":"query-status"}"#) == SimulatedClient.refusal("The command query-status does not support OOB"))
    #expect(
      try await other.ask(#"{"exec-oob":"nope"}"#)
        == SimulatedClient.refusal("The command nope has not been found", class: "CommandNotFound"))
    #expect(try await simulation.main.rest() == "")
    #expect(try await other.ask(#"{"exec-oob":"x-simulator-unblock","id":"unblock"}"#) == #"{"return": {}, "id": "unblock"}"#)
    #expect(try await simulation.main.line() == #"{"return": {}, "id": "block"}"#)
    #expect(try await other.line() == #"{"return": {"name": "test"}, "id": "in-band"}"#)
  }

  @Test("malformed input keeps its place among the commands") @EventLoopActor
  func malformedInOrder() async throws {
    let client = try await Simulation.negotiated(outOfBand: true).main
    try await client.send(#"{"execute":"query-name"} {"execute":1} [1] {"execute":"query-name"}"#)
    let name = #"{"return": {"name": "test"}}"#
    #expect(
      try await client.lines(4) == [
        name, SimulatedClient.refusal("QMP input member 'execute' must be a string"),
        SimulatedClient.refusal("QMP input must be a JSON object"), name,
      ])
  }

  @Test("what ends a block may come before it") @EventLoopActor
  func unblockedBefore() async throws {
    let simulation = try await Simulation.negotiated(outOfBand: true)
    try await simulation.main.send(#"{"execute":"x-simulator-block"}{"execute":"query-name"}{"exec-oob":"x-simulator-unblock"}"#)
    #expect(try await simulation.main.lines(3) == [SimulatedClient.done, SimulatedClient.done, #"{"return": {"name": "test"}}"#])
    // Once only.
    try await simulation.main.send(#"{"execute":"x-simulator-block","id":1}{"execute":"query-name"}"#)
    try await quiet()
    try await simulation.main.send(#"{"exec-oob":"x-simulator-unblock","id":2}"#)
    #expect(try await simulation.main.line() == #"{"return": {}, "id": 2}"#)
    #expect(try await simulation.main.lines(2) == [#"{"return": {}, "id": 1}"#, #"{"return": {"name": "test"}}"#])
  }

  @Test("a client's commands are left unread: all but one, and with OOB all but eight") @EventLoopActor
  func unreadCommands() async throws {
    for (outOfBand, count) in [(false, 1), (true, 8)] {
      let simulation = try await Simulation.negotiated(outOfBand: outOfBand)
      simulation.qemu.block()
      let start = simulation.qemu.commandCount
      try await simulation.main.send(String(repeating: #"{"execute":"query-name"}"#, count: 20))
      try await quiet()
      #expect(simulation.qemu.commandCount - start == count)
      simulation.qemu.unblock()
      #expect(try await simulation.main.lines(20).allSatisfy { $0 == #"{"return": {"name": "test"}}"# })
    }
  }

  @Test("a monitor is removed with commands waiting: they are dropped, and the dispatcher goes on", arguments: [false, true])
  @EventLoopActor
  func removedWithCommands(outOfBand: Bool) async throws {
    let simulation = try await Simulation.negotiated()
    let victim = try await simulation.hotplug("victim", negotiated: false)
    try await victim.negotiate(outOfBand: outOfBand)
    simulation.qemu.block()
    try await simulation.main.send(#"{"execute":"object-del","arguments":{"id":"victim"}}"#)
    try await quiet()
    try await victim.send(String(repeating: #"{"execute":"query-name"}"#, count: 10))
    try await quiet()
    simulation.qemu.unblock()
    #expect(try await simulation.main.line() == SimulatedClient.done)
    // What had its turn before was answered.
    #expect(try await victim.rest().split(separator: "\r\n").count <= 2)
    #expect(try await simulation.main.execute("query-name") == #"{"return": {"name": "test"}}"#)
    #expect(try await simulation.main.execute("chardev-remove", #"{"id":"victim"}"#) == SimulatedClient.done)
    #expect(simulation.qemu.leftovers == [])
  }

  @Test("a client goes while its command blocks: the next one starts afresh") @EventLoopActor
  func goneWhileBlocking() async throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("qmp")
    let simulation = try await Simulation.negotiated()
    try simulation.qemu.addMonitor("path", listeningAt: path)
    let first = try SimulatedClient(at: path)
    try await first.negotiate()
    try await first.send(#"{"execute":"x-simulator-block"}"#)
    try await quiet()
    first.peer.close()
    let second = try SimulatedClient(at: path)
    #expect(try await second.line() == SimulatedClient.greeting)
    simulation.qemu.unblock()
    #expect(try await second.execute("query-name") == QMPTests.notNegotiated)
    #expect(try await simulation.main.execute("query-name") == #"{"return": {"name": "test"}}"#)
  }
}
