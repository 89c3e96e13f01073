import Glibc
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import Machine
@testable import QMP

@Suite(.onEventLoop) struct MonitorsTests {
  static let questions = [
    #"{"execute":"qom-list-types","arguments":{"implements":"monitor-qmp"}}"#, #"{"execute":"qom-list","arguments":{"path":"/objects"}}"#,
  ]
  static func hotplug(_ id: String) -> [String] {
    [
      #"{"execute":"getfd","arguments":{"fdname":"\#(id)"}}"#,
      #"{"execute":"chardev-add","arguments":{"id":"\#(id)","backend":{"type":"socket","data":{"addr":{"type":"fd","data":{"str":"\#(id)"}},"#
        + #""server":false}}}}"#,
      #"{"execute":"object-add","arguments":{"qom-type":"monitor-qmp","id":"\#(id)","chardev":"\#(id)"}}"#,
    ]
  }
  static func command(_ name: String, _ id: String) -> String {
    #"{"execute":"\#(name)","arguments":{"\#(name == "closefd" ? "fdname" : "id")":"\#(id)"}}"#
  }

  @Test("a hotplug is three commands, one behind the other, with one end of a pair of ours") @EventLoopActor
  func hotplug() async throws {
    let test = try Hotplugging()
    let added = try await test.monitors.add()
    #expect(added.id == "qv-1")
    #expect(test.qemu.commands == Self.questions + Self.hotplug("qv-1"))
    #expect(test.qemu.peer.text == (Self.questions + Self.hotplug("qv-1")).joined())
    let descriptors = test.qemu.peer.takeDescriptors()
    #expect(descriptors.count == 1)
    let far = try Peer(OwnedDescriptor(owning: try #require(descriptors.first)))
    let near = try Peer(added.takeSocket())
    try await far.write("greeting")
    try await near.wait(for: "greeting")
    // Nobody here holds QEMU's end: when QEMU lets go of it, that shows.
    far.close()
    try await near.waitForEnd()
  }

  @Test("each monitor has an id of its own, and support is asked for once") @EventLoopActor
  func ids() async throws {
    let test = try Hotplugging()
    var ids: [String] = []
    for _ in 0..<37 { ids.append(try await test.add().get()) }
    #expect(ids.prefix(11) == ["qv-1", "qv-2", "qv-3", "qv-4", "qv-5", "qv-6", "qv-7", "qv-8", "qv-9", "qv-a", "qv-b"])
    #expect(ids.last == "qv-11")
    #expect(test.qemu.commands.count { $0 == Self.questions[0] } == 1)
  }

  @Test("an id that another daemon has meanwhile is left to it, and those near it too") @EventLoopActor
  func idTaken() async throws {
    var taken = ["chardev-add", "object-add"]
    let test = try Hotplugging { name in
      guard let index = taken.firstIndex(of: name) else { return nil }
      taken.remove(at: index)
      return ScriptedQEMU.refusal("attempt to add duplicate property 'qv-1' to object (type 'container')")
    }
    let id = try await test.add().get()
    let number = try #require(Int(id.dropFirst(3), radix: 36))
    #expect(number > 1000)
    #expect(test.qemu.commands == Self.questions + Self.hotplug("qv-1") + [Self.command("closefd", "qv-1")] + Self.hotplug(id))
    #expect(try await test.add().get() == "qv-" + String(number + 1, radix: 36))
  }

  @Test("a QEMU without such monitors is not asked for one") @EventLoopActor
  func notSupported() async throws {
    let test = try Hotplugging { $0 == "qom-list-types" ? #"{"return": []}"# : nil }
    for _ in 0..<2 {
      guard case .failure(.notSupported) = await test.add() else {
        Issue.record("added")
        return
      }
    }
    // What a QEMU lacks is not remembered: it costs little to ask again.
    let asked = Self.questions + [#"{"execute":"query-commands"}"#]
    #expect(test.qemu.commands == asked + asked)
  }

  @Test(
    "of a hotplug that fails, exactly what was made is taken back",
    arguments: [
      (["getfd", "chardev-add", "object-add"], []),
      (["chardev-add", "object-add"], ["closefd"]),
      (["object-add"], ["chardev-remove"]),
      (["getfd"], ["object-del", "chardev-remove"]),
      (["chardev-add"], ["object-del", "closefd"]),
      (["object-add", "chardev-remove"], ["chardev-remove"]),
    ])
  @EventLoopActor
  func undo(failing: [String], undone: [String]) async throws {
    let test = try Hotplugging { failing.contains($0) ? ScriptedQEMU.refusal("\($0) failed") : nil }
    #expect(await test.add().complaint == "\(failing[0]): \(failing[0]) failed (GenericError)")
    #expect(test.qemu.commands == Self.questions + Self.hotplug("qv-1") + undone.map { Self.command($0, "qv-1") })
    let far = try Peer(OwnedDescriptor(owning: dup(try #require(test.qemu.peer.descriptors.raw.first))))
    // Our end is closed.
    try await far.waitForEnd()
  }

  @Test("a QEMU that goes in the middle of a hotplug fails it") @EventLoopActor
  func disconnected() async throws {
    var close = {}
    let test = try Hotplugging { name in
      if name == "chardev-add" { close() }
      return nil
    }
    close = { [weak peer = test.qemu.peer] in peer?.close() }
    #expect(await test.add().complaint == "\(QMPError.disconnected)")
    #expect(try await test.control.lost.soon() == .disconnected)
    #expect(await test.add().complaint == "\(QMPError.disconnected)")
  }

  @Test("a monitor is removed with its chardev, in one write") @EventLoopActor
  func remove() async throws {
    let test = try Hotplugging()
    try await test.monitors.remove("qv-7")
    // A fence first: what QEMU still has to do for the drained monitor is done before it reads on.
    let fence = #"{"execute":"query-name"}"#
    #expect(
      test.qemu.peer.text == Self.questions.joined() + fence + Self.command("object-del", "qv-7") + Self.command("chardev-remove", "qv-7"))
  }

  @Test("a monitor is disconnected before it is removed, and what QEMU sent before can still be read") @EventLoopActor
  func disconnectedFirst() async throws {
    let test = try Hotplugging()
    let added = try await test.monitors.add()
    let far = try Peer(OwnedDescriptor(owning: try #require(test.qemu.peer.takeDescriptors().first)))
    let near = try Peer(added.takeSocket())
    try await far.write("the last words")
    let asked = test.qemu.commands.count
    let removal = Task(executorPreference: EventLoop.shared) { try await test.monitors.remove("qv-1") }
    try await far.waitForEnd()
    #expect(test.qemu.commands.count == asked, "QEMU has not closed its end yet")
    far.close()
    try await removal.value
    #expect(
      test.qemu.commands.suffix(3) == [
        #"{"execute":"query-name"}"#, Self.command("object-del", "qv-1"), Self.command("chardev-remove", "qv-1"),
      ])
    try await near.waitForEnd()
    #expect(near.text == "the last words")
  }

  @Test("a monitor that QEMU does not let go of, because somebody else has deleted it, is removed nevertheless") @EventLoopActor
  func notDisconnected() async throws {
    let test = try Hotplugging()
    _ = try await test.monitors.add()
    try await test.monitors.remove("qv-1")
    #expect(test.qemu.commands.last == Self.command("chardev-remove", "qv-1"))
  }

  @Test("monitors that go while they are listed are left out, however many there are") @EventLoopActor
  func listedWhileTheyGo() async throws {
    let objects = ["a", "gone", "b"].map { #"{"name": "\#($0)", "type": "child<monitor-qmp>"}"# }.joined(separator: ",")
    var asked = 0
    let test = try Hotplugging { name in
      switch name {
      case "qom-list": return #"{"return": [\#(objects)]}"#
      case "query-chardev": return #"{"return": []}"#
      case "qom-list-get":
        asked += 1
        // All at once, and then each by itself.
        guard asked == 2 || asked == 4 else { return ScriptedQEMU.refusal("Device '/objects/gone' not found") }
        return #"{"return": [{"properties": [{"name": "chardev", "value": "of \#(asked)"}]}]}"#
      default: return nil
      }
    }
    let listed = try await test.monitors.list()
    #expect(listed.map(\.id) == ["a", "b"] && listed.map(\.chardev) == ["of 2", "of 4"])
    #expect(asked == 4)
  }

  @Test("a monitor that QEMU is still setting up is removed once that is over") @EventLoopActor
  func removeTooEarly() async throws {
    var attempts = 0
    let test = try Hotplugging { name in
      if name == "object-del" { attempts += 1 }
      guard attempts < 4, ["object-del", "chardev-remove"].contains(name) else { return nil }
      return ScriptedQEMU.refusal(name == "object-del" ? "monitor is still initializing" : "Chardev 'qv-1' is busy")
    }
    try await test.monitors.remove("qv-1")
    #expect(attempts == 4)
  }

  @Test("a monitor that cannot be removed is an error, with QEMU's words", arguments: ["object-del", "chardev-remove"])
  @EventLoopActor
  func removeFails(command: String) async throws {
    let test = try Hotplugging { $0 == command ? ScriptedQEMU.refusal("in use") : nil }
    await #expect {
      try await test.monitors.remove("qv-1")
    } throws: {
      "\($0)" == "\(command): in use (GenericError)"
    }
  }

  @Test("a hotplug that QEMU does not answer in time is taken back when it answers again") @EventLoopActor
  func timedOut() async throws {
    var answers = true
    let test = try Hotplugging { _ in answers ? nil : "" }
    test.client.responseLimit = nil
    _ = try await test.add().get()
    answers = false
    test.client.responseLimit = .milliseconds(20)
    #expect(await test.add().complaint == "\(QMPError.timedOut)")
    test.client.responseLimit = nil
    // Behind the three it asks whether there are answers again.
    try await test.qemu.wait(forCommands: 2 + 3 + 3 + 1)
    let last = try #require(test.qemu.commands.last)
    let probe = try #require(try JSONVariant(parsing: last)["id"])
    answers = true
    try await test.qemu.peer.write(ScriptedQEMU.done + ScriptedQEMU.done + ScriptedQEMU.done + #"{"return": {}, "id": \#(probe)}"#)
    let closefd = #"{"execute":"closefd","arguments":{"fdname":"qv-2"}}"#
    while test.qemu.commands.last != closefd { try await quiet() }
    let expected = [Self.command("object-del", "qv-2"), Self.command("chardev-remove", "qv-2"), closefd]
    #expect(test.qemu.commands.suffix(3).elementsEqual(expected))
    // Until then our end was open.
    let far = try Peer(OwnedDescriptor(owning: dup(try #require(test.qemu.peer.descriptors.raw.last))))
    try await far.waitForEnd()
  }

  @Test("what belongs to a device is no stray, and in the way of no monitor's id") @EventLoopActor
  func devices() async throws {
    let test = try Hotplugging { name in
      switch name {
      case "qom-list": #"{"return": [{"name": "qv-.ram", "type": "child<memory-backend-memfd>"}]}"#
      case "query-chardev":
        #"{"return": [{"label": "qv-.tpm", "filename": "disconnected:unix"}, {"label": "qv-.v1", "filename": "x", "frontend-open": false}]}"#
      default: nil
      }
    }
    let ours = try await test.monitors.findOurs()
    #expect(ours.ids.isEmpty)
    try await test.monitors.removeStrays()
    #expect(!test.qemu.commands.contains { $0.contains("chardev-remove") })
  }

  @Test("counting goes on behind what other daemons made") @EventLoopActor
  func numbering() async throws {
    let test = try Hotplugging { name in
      switch name {
      case "qom-list": #"{"return": [{"name": "qv-3"}, {"name": "pc.ram"}, {"name": "qv-control"}, {"name": "qv-!"}]}"#
      case "query-chardev": #"{"return": [{"label": "qv-a", "filename": "fd:1"}, {"label": "serial0", "filename": "null"}]}"#
      default: nil
      }
    }
    try await test.monitors.continueNumbering()
    let id = try await test.add().get()
    let number = try #require(Int(id.dropFirst(3), radix: 36))
    #expect(number > 10)
  }
}
