import Simulator
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("faults", .onEventLoop) struct FaultTests {
  static let name = #"{"return": {"name": "test"}}"#
  static func query(_ id: Int) -> String { #"{"execute":"query-name","id":\#(id)}"# }
  static func name(_ id: Int) -> String { #"{"return": {"name": "test"}, "id": \#(id)}"# }

  @Test("dropped: not executed, no reply; muted: executed, no reply; others go on") @EventLoopActor
  func dropAndMute() async throws {
    for (kind, isExecuted) in [(SimulatedQEMU.Fault.Kind.drop, false), (.mute, true)] {
      let simulation = try await Simulation.negotiated { $0.faults = [.init(kind, at: 2)] }
      try await simulation.main.send(#"{"execute":"stop"}"# + Self.query(2))
      if isExecuted { #expect(try await simulation.main.line() == SimulatedClient.event("STOP")) }
      #expect(try await simulation.main.line() == Self.name(2))
    }
  }

  @Test("delayed: it and all that is in-band wait, what is out of band does not") @EventLoopActor
  func delay() async throws {
    let clock = SimulatedClock.still
    let simulation = try await Simulation.negotiated(clock: clock, outOfBand: true) { $0.faults = [.init(.delay(.seconds(2)), at: 2)] }
    try await simulation.main.send(#"{"execute":"stop"}"# + Self.query(2) + #"{"exec-oob":"query-yank"}"#)
    #expect(try await simulation.main.line() == #"{"return": [{"type": "chardev", "id": "main"}]}"#)
    clock.advance(by: .milliseconds(1999))
    #expect(try await simulation.main.rest() == "")
    clock.advance(by: .milliseconds(1))
    #expect(try await simulation.main.lines(3) == [SimulatedClient.event("STOP", seconds: 1002), SimulatedClient.done, Self.name(2)])
  }

  @Test("garbled: some bytes are others, the same ones for the same seed") @EventLoopActor
  func garble() async throws {
    var damaged: [String: Set<[UInt8]>] = [:]
    for (seed, name) in [(UInt64(1), "one"), (1, "one"), (2, "two"), (3, "three")] {
      let simulation = try await Simulation.negotiated {
        $0.faults = [.init(.garble, at: 2)]
        $0.seed = seed
      }
      simulation.main.peer.forget()
      try await simulation.main.send(Self.query(1))
      try await quiet()
      let bytes = simulation.main.peer.received
      let whole = Array((Self.name(1) + "\r\n").utf8)
      #expect(bytes.count == whole.count && (1...3).contains(zip(bytes, whole).count { $0 != $1 }) && bytes.suffix(2) == whole.suffix(2))
      damaged[name, default: []].insert(bytes)
    }
    #expect(damaged["one"]?.count == 1 && Set(damaged.values.joined()).count > 1)
  }

  @Test("closed: before the command is executed, or after") @EventLoopActor
  func close() async throws {
    for isExecuted in [false, true] {
      let simulation = try await Simulation.negotiated()
      let other = try await simulation.hotplug("other")
      simulation.qemu.inject(.init(.close(afterExecution: isExecuted), at: 2, on: "other"))
      try await other.send(#"{"execute":"stop"}"#)
      try await other.peer.waitForEnd()
      #expect(try await other.rest() == (isExecuted ? SimulatedClient.event("STOP") + "\r\n" : ""))
      if isExecuted { #expect(try await simulation.main.line() == SimulatedClient.event("STOP")) }
      #expect(try await simulation.main.execute("query-status").contains(isExecuted ? "paused" : "running"))
      #expect(simulation.qemu.chardevStates.last?.filename == "disconnected:fd:other")
    }
  }

  @Test("dead: everything closes at once, and the sockets' files stay") @EventLoopActor
  func die() async throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("qmp")
    let simulation = try await Simulation.negotiated { $0.faults = [.init(.die, at: 3)] }
    try simulation.qemu.addMonitor("path", listeningAt: path)
    let other = try SimulatedClient(at: path)
    try await other.negotiate()
    try await simulation.main.send(#"{"execute":"stop"}"#)
    for client in [simulation.main, other] {
      try await client.peer.waitForEnd()
      #expect(try await client.rest() == "")
    }
    #expect(simulation.qemu.ended.result == .died && FilePath.exists(path))
    #expect(simulation.qemu.monitorStates == [] && simulation.qemu.chardevStates == [])
  }

  @Test("reordered: the reply comes behind the next one") @EventLoopActor
  func reorder() async throws {
    let simulation = try await Simulation.negotiated { $0.faults = [.init(.reorder, at: 2), .init(.reorder, at: 3)] }
    for id in 1...4 { try await simulation.main.send(Self.query(id)) }
    #expect(try await simulation.main.lines(4) == [Self.name(3), Self.name(1), Self.name(2), Self.name(4)])
  }

  @Test("failed: not executed, and so it says") @EventLoopActor
  func fail() async throws {
    let simulation = try await Simulation.negotiated { $0.faults = [.init(.fail("a\nb"), at: 2)] }
    #expect(
      try await simulation.main.ask(#"{"execute":"stop","id":1}"#) == #"{"id": 1, "error": {"class": "GenericError", "desc": "a\nb"}}"#)
    #expect(try await simulation.main.execute("query-status").contains("running"))
  }

  @Test("a fault at each step of a hotplug: what it leaves is told exactly") @EventLoopActor
  func everyStep() async throws {
    for step in 1...3 {
      let simulation = try await Simulation.negotiated()
      simulation.qemu.inject(.init(.fail("no"), at: simulation.qemu.commandCount + step))
      await #expect(throws: NeverCame.self) { _ = try await simulation.hotplug("extra") }
      let left = [[], ["descriptor 'extra' of monitor 'main'"], ["chardev 'extra'"]][step - 1]
      #expect(simulation.qemu.leftovers == left)
    }
  }

  @Test("by chance: as often as asked, the same for the same seed whatever the order of monitors") @EventLoopActor
  func random() async throws {
    var runs: [[String]] = []
    for seed in [UInt64(7), 7, 8] {
      let simulation = try Simulation {
        $0.seed = seed
        $0.randomFaults = .init(rate: 0.3, kinds: [.fail("by chance")])
      }
      _ = try await simulation.main.line()
      while try await simulation.main.execute("qmp_capabilities") != SimulatedClient.done {}
      var replies: [String] = []
      for id in 1...200 { replies.append(try await simulation.main.ask(Self.query(id))) }
      runs.append(replies)
    }
    #expect(runs[0] == runs[1] && runs[0] != runs[2])
    #expect((30...90).contains(runs[0].count { $0.contains("by chance") }))
  }

  @Test(
    "a fault as the command line spells it",
    arguments: [
      ("drop@1", .init(.drop, at: 1)), ("mute@12", .init(.mute, at: 12)), ("delay@2", .init(.delay(.seconds(1)), at: 2)),
      ("delay@2:250ms", .init(.delay(.milliseconds(250)), at: 2)), ("delay@2:1.5s", .init(.delay(.milliseconds(1500)), at: 2)),
      ("close@3", .init(.close(afterExecution: false), at: 3)), ("close@3:after", .init(.close(afterExecution: true), at: 3)),
      ("fail@main/4:a:b@c", .init(.fail("a:b@c"), at: 4, on: "main")), ("garble@x/1", .init(.garble, at: 1, on: "x")),
      ("die@1", .init(.die, at: 1)), ("reorder@1", .init(.reorder, at: 1)),
    ] as [(String, SimulatedQEMU.Fault)])
  func spelling(text: String, fault: SimulatedQEMU.Fault) throws {
    #expect(try SimulatedQEMU.Fault(parsing: text) == fault)
  }

  @Test(
    "what is no fault",
    arguments: ["", "drop", "drop@", "drop@0", "drop@-1", "drop@x", "nope@1", "drop@1:x", "delay@1:soon", "delay@1:5", "close@1:later"])
  func misspelled(text: String) { #expect(throws: SimulatedQEMU.Fault.Unreadable.self) { try SimulatedQEMU.Fault(parsing: text) } }

  @Test("chances as the command line spells them")
  func randomSpelling() throws {
    #expect(try SimulatedQEMU.RandomFaults(parsing: "random@0.25") == .init(rate: 0.25))
    #expect(try SimulatedQEMU.RandomFaults(parsing: "random@1:drop,die") == .init(rate: 1, kinds: [.drop, .die]))
    for text in ["random@", "random@2", "random@0.1:", "random@0.1:drop,", "drop@1"] {
      #expect(throws: SimulatedQEMU.Fault.Unreadable.self) { try SimulatedQEMU.RandomFaults(parsing: text) }
    }
  }
}
