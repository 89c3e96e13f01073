import Simulator
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("monitors that come and go", .onEventLoop) struct HotplugTests {
  @Test("hotplug, greeting, negotiation, commands, removal: twice with the same ids, and nothing is left") @EventLoopActor
  func cycle() async throws {
    let simulation = try await Simulation.negotiated()
    for _ in 0..<2 {
      let extra = try await simulation.hotplug("extra")
      #expect(try await extra.execute("query-name") == #"{"return": {"name": "test"}}"#)
      #expect(simulation.qemu.leftovers == ["monitor 'extra'", "chardev 'extra'"])
      #expect(try await simulation.main.execute("object-del", #"{"id":"extra"}"#) == SimulatedClient.done)
      // The client notices nothing before the chardev goes.
      #expect(try await extra.rest() == "" && !extra.peer.hasEnded)
      #expect(try await simulation.main.execute("chardev-remove", #"{"id":"extra"}"#) == SimulatedClient.done)
      try await extra.peer.waitForEnd()
      #expect(simulation.qemu.leftovers == [])
    }
  }

  @Test("on a listening path, one client at a time, each with a greeting and a negotiation of its own") @EventLoopActor
  func listening() async throws {
    let simulation = try await Simulation.negotiated()
    let folder = try TemporaryFolder()
    let path = folder.path.appending("qmp")
    for _ in 0..<2 {
      #expect(
        try await simulation.main.execute("chardev-add", #"{"id":"u","backend":\#(SimulatedClient.backend(path: path))}"#)
          == SimulatedClient.done)
      #expect(
        try await simulation.main.execute("object-add", #"{"qom-type":"monitor-qmp","id":"m","chardev":"u"}"#) == SimulatedClient.done)
      let first = try SimulatedClient(at: path)
      try await first.negotiate(outOfBand: true)
      let second = try SimulatedClient(at: path)
      #expect(try await second.rest() == "")
      first.peer.close()
      #expect(try await second.line() == SimulatedClient.greeting)
      #expect(
        try await second.execute("query-name")
          == SimulatedClient.refusal("Expecting capabilities negotiation with 'qmp_capabilities'", class: "CommandNotFound"))
      #expect(simulation.qemu.chardevStates.last?.filename == "unix:\(path),server=on")
      #expect(try await simulation.main.execute("object-del", #"{"id":"m"}"#) == SimulatedClient.done)
      #expect(try await simulation.main.execute("chardev-remove", #"{"id":"u"}"#) == SimulatedClient.done)
      try await second.peer.waitForEnd()
      #expect(!FilePath.exists(path))
    }
    #expect(simulation.qemu.leftovers == [])
  }

  @Test("with close-action=delete, monitor and chardev go with their client") @EventLoopActor
  func closeAction() async throws {
    let simulation = try await Simulation.negotiated()
    let extra = try await simulation.hotplug("extra", options: #","close-action":"delete""#)
    extra.peer.close()
    try await quiet()
    #expect(simulation.qemu.leftovers == [])
    // Without, both stay, and tell that nobody is there.
    let other = try await simulation.hotplug("other")
    other.peer.close()
    try await quiet()
    #expect(simulation.qemu.chardevStates.last?.filename == "disconnected:fd:other")
    #expect(simulation.qemu.leftovers == ["monitor 'other'", "chardev 'other'"])
  }

  @Test("a client that has gone before the monitor came is never noticed, as in QEMU") @EventLoopActor
  func goneEarly() async throws {
    let simulation = try await Simulation.negotiated()
    let (ours, theirs) = try socketPair()
    let held = OwnedDescriptor(owning: theirs)
    #expect(
      try await simulation.main.ask(#"{"execute":"getfd","arguments":{"fdname":"x"}}"#, descriptors: [held.raw]) == SimulatedClient.done)
    withExtendedLifetime(OwnedDescriptor(owning: ours)) {}
    #expect(
      try await simulation.main.execute("chardev-add", #"{"id":"x","backend":\#(SimulatedClient.backend(descriptor: "x"))}"#)
        == SimulatedClient.done)
    withExtendedLifetime(consume held) {}
    #expect(
      try await simulation.main.execute("object-add", #"{"qom-type":"monitor-qmp","id":"x","chardev":"x","close-action":"delete"}"#)
        == SimulatedClient.done)
    #expect(simulation.qemu.chardevStates.last?.filename == "disconnected:fd:x")
    #expect(simulation.qemu.leftovers == ["monitor 'x'", "chardev 'x'"])
  }

  @Test("descriptors that a monitor has stored are its own, and stay in QEMU when it goes") @EventLoopActor
  func storedDescriptors() async throws {
    let simulation = try await Simulation.negotiated()
    let extra = try await simulation.hotplug("extra")
    let pipe = try pipePair()
    let reading = OwnedDescriptor(owning: pipe.reading)
    let writing = OwnedDescriptor(owning: pipe.writing)
    #expect(try await extra.ask(#"{"execute":"getfd","arguments":{"fdname":"p"}}"#, descriptors: [writing.raw]) == SimulatedClient.done)
    #expect(
      try await simulation.main.execute("closefd", #"{"fdname":"p"}"#) == SimulatedClient.refusal("File descriptor named 'p' not found"))
    #expect(simulation.qemu.monitorStates.last?.descriptors == ["p"])
    #expect(try await simulation.main.execute("object-del", #"{"id":"extra"}"#) == SimulatedClient.done)
    #expect(simulation.qemu.orphanedDescriptorCount == 1)
    withExtendedLifetime(reading) {}
  }
}
