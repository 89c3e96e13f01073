import Simulator
import SystemdEvent
import TestSupport
import Testing

@Suite("events", .onEventLoop) struct EventTests {
  @Test("an event comes before the reply of what brought it about, on every monitor that has negotiated") @EventLoopActor
  func broadcast() async throws {
    let simulation = try await Simulation.negotiated()
    let negotiated = try await simulation.hotplug("negotiated")
    let silent = try await simulation.hotplug("silent", negotiated: false)
    #expect(try await silent.line() == SimulatedClient.greeting)
    #expect(try await simulation.main.execute("stop") == SimulatedClient.event("STOP"))
    #expect(try await simulation.main.line() == SimulatedClient.done)
    #expect(try await negotiated.line() == SimulatedClient.event("STOP"))
    #expect(try await simulation.main.execute("query-status") == #"{"return": {"status": "paused", "running": false}}"#)
    // Twice is once.
    #expect(try await simulation.main.execute("stop") == SimulatedClient.done)
    #expect(try await simulation.main.execute("cont") == SimulatedClient.event("RESUME"))
    #expect(try await simulation.main.execute("system_powerdown") == SimulatedClient.done)
    #expect(try await simulation.main.lines(1) == [SimulatedClient.event("POWERDOWN")])
    simulation.qemu.emit("X", data: ["a": 1, "b": []])
    #expect(
      try await negotiated.lines(3) == [
        SimulatedClient.event("RESUME"), SimulatedClient.event("POWERDOWN"), SimulatedClient.event("X", data: #"{"a": 1, "b": []}"#),
      ])
    #expect(try await silent.rest() == "")
  }

  @Test("the time of an event is that of the clock") @EventLoopActor
  func timestamps() async throws {
    let clock = SimulatedClock.still
    let simulation = try await Simulation.negotiated(clock: clock)
    clock.advance(by: .milliseconds(1500))
    simulation.qemu.emit("X")
    #expect(try await simulation.main.line() == #"{"timestamp": {"seconds": 1001, "microseconds": 500000}, "event": "X"}"#)
  }

  @Test("of throttled kinds, the first comes at once and then the last of each second; of others, all") @EventLoopActor
  func throttling() async throws {
    let clock = SimulatedClock.still
    let simulation = try await Simulation.negotiated(clock: clock)
    let late = try await simulation.hotplug("late", negotiated: false)
    for number in 1...5 {
      simulation.qemu.emit("RTC_CHANGE", data: ["offset": .integer(Int64(number))])
      simulation.qemu.emit("STOP")
    }
    #expect(
      try await simulation.main.lines(6).filter { $0.contains("RTC_CHANGE") } == [
        SimulatedClient.event("RTC_CHANGE", data: #"{"offset": 1}"#)
      ])
    clock.advance(by: .milliseconds(999))
    #expect(try await simulation.main.rest() == "")
    // The limit is one for all monitors: who comes in between gets what was held back, too.
    try await late.negotiate()
    clock.advance(by: .milliseconds(1))
    let held = SimulatedClient.event("RTC_CHANGE", data: #"{"offset": 5}"#)
    #expect(try await simulation.main.line() == held)
    #expect(try await late.line() == held)
    clock.advance(by: .seconds(2))
    simulation.qemu.emit("RTC_CHANGE")
    #expect(try await simulation.main.line() == SimulatedClient.event("RTC_CHANGE", seconds: 1003))
  }

  @Test("events of several sources are throttled for each") @EventLoopActor
  func throttlingBySource() async throws {
    let simulation = try await Simulation.negotiated()
    for id in ["a", "b", "a", "b"] { simulation.qemu.emit("VSERPORT_CHANGE", data: ["id": .string(id), "open": true]) }
    simulation.qemu.emit("X")
    #expect(try await simulation.main.lines(3).map { $0.contains(#""id": "a""#) } == [true, false, false])
  }

  @Test("an event can be had between any two steps of a command") @EventLoopActor
  func steps() async throws {
    let simulation = try await Simulation.negotiated()
    let other = try await simulation.hotplug("other")
    let next = simulation.qemu.commandCount + 1
    for (moment, name) in [(SimulatedQEMU.Moment.arrival, "A"), (.beforeExecution, "B"), (.afterExecution, "C"), (.afterReply, "D")] {
      simulation.qemu.at(moment, ofCommand: next) { simulation.qemu.emit(name) }
    }
    // The second command of this monitor, its capabilities being the first.
    simulation.qemu.at(.afterReply, ofCommand: 2, on: "other") { simulation.qemu.emit("E") }
    #expect(try await simulation.main.execute("stop") == SimulatedClient.event("A"))
    #expect(
      try await simulation.main.lines(5)
        == [
          SimulatedClient.event("B"), SimulatedClient.event("STOP"), SimulatedClient.event("C"), SimulatedClient.done,
          SimulatedClient.event("D"),
        ])
    #expect(try await other.lines(5).last == SimulatedClient.event("D"))
    #expect(try await other.execute("query-name") == #"{"return": {"name": "test"}}"#)
    #expect(try await other.line() == SimulatedClient.event("E"))
  }

  @Test("quit: SHUTDOWN for all, the reply for the one, then the end") @EventLoopActor
  func quit() async throws {
    let simulation = try await Simulation.negotiated()
    let other = try await simulation.hotplug("other")
    let silent = try await simulation.hotplug("silent", negotiated: false)
    try await other.send(#"{"execute":"quit","id":5}"#)
    let event = SimulatedClient.event("SHUTDOWN", data: #"{"guest": false, "reason": "host-qmp-quit"}"#)
    #expect(try await other.lines(2) == [event, #"{"return": {}, "id": 5}"#])
    #expect(try await simulation.main.line() == event)
    for client in [simulation.main, other, silent] { try await client.peer.waitForEnd() }
    #expect(simulation.qemu.ended.result == .quit)
    #expect(try await silent.line() == SimulatedClient.greeting)
    #expect(try await silent.rest() == "")
  }
}
