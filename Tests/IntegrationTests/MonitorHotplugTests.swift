import Foundation
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// The cases of the tests that came with QEMU's own monitor hotplug, in both of its generations, over io.qmpvarlink.Monitors.
///
/// One rule holds for both where they differ: a monitor of the command line stays, and a monitor is removed from outside, by
/// `Remove`. What a session does to monitors by raw QMP follows the rules of its QEMU.
@Suite("monitors on demand, in either dialect", .onEventLoop)
struct MonitorHotplugTests {
  private static let negotiate = #"{"execute":"qmp_capabilities"}"#
  private static let negotiated = #"{"return": {}}"#

  // MARK: QEMU's tests/qtest/qmp-test

  @Test("added, a second time refused, removed, a second time refused, added again", arguments: Backend.allCases) @EventLoopActor
  func addRemove(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      try await monitors.makeChardev("free")
      for _ in 0..<2 {
        #expect(try await monitors.add("extra", chardev: "free") == "{}")
        #expect(try await monitors.add("extra", chardev: "free") == MonitorsClient.error("MonitorExists", #""id":"extra""#))
        #expect(try await monitors.listed("extra")?.contains(#""chardev":"free","dynamic":true"#) == true)
        #expect(try await monitors.remove("extra") == "{}")
        #expect(try await monitors.remove("extra") == MonitorsClient.error("NoSuchMonitor", #""id":"extra""#))
      }
      #expect(try await daemon.qmp(#"{"execute":"chardev-remove","arguments":{"id":"free"}}"#).contains("return"), "the chardev stays")
    }
  }

  @Test("unknown and used chardevs, and what cannot be removed, have errors of their own", arguments: Backend.allCases) @EventLoopActor
  func errors(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      try await monitors.makeChardev("free")
      #expect(try await monitors.add("extra", chardev: "nope") == MonitorsClient.error("NoSuchChardev", #""chardev":"nope""#))
      #expect(try await monitors.add("extra", chardev: "free") == "{}")
      #expect(try await monitors.add("second", chardev: "free") == MonitorsClient.error("ChardevInUse", #""chardev":"free""#))
      #expect(try await monitors.remove("extra") == "{}")
      #expect(try await monitors.remove("nope") == MonitorsClient.error("NoSuchMonitor", #""id":"nope""#))

      let onCommandLine = Backend.commandLineMonitor
      #expect(try await monitors.remove(onCommandLine) == MonitorsClient.error("NotDynamic", #""id":"\#(onCommandLine)""#))
      #expect(try await monitors.remove(Backend.humanMonitor) == MonitorsClient.error("NotQMP", #""id":"\#(Backend.humanMonitor)""#))
      #expect(try await monitors.listed(Backend.humanMonitor)?.contains(#""mode":"hmp""#) == true)
      let list = try await monitors.call("List")
      let control = try #require(list.components(separatedBy: #"{"id":""#).first { $0.contains(#""control":true"#) }?.prefix { $0 != "\"" })
      #expect(try await monitors.remove(String(control)) == MonitorsClient.error("IsControlMonitor", #""id":"\#(control)""#))
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("\"running\":true"))
    }
  }

  @Test("names and sources are checked before QEMU is asked", arguments: Backend.allCases) @EventLoopActor
  func parameters(backend: Backend) async throws {
    try await backend.withDaemon(["--max-monitors", "2"]) { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      let path = monitors.path("socket")
      for id in ["", "9a", "a b", "ä", "a,b", "qv-1", String(repeating: "a", count: 129)] {
        let reply = try await monitors.listen(id, at: path)
        #expect(reply == #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"id"}}"#, "\(id)")
      }
      for (parameters, wrong) in [
        ("", "listen"), (#","listen":"relative""#, "listen"), (#","listen":"/tmp/""#, "listen"),
        (#","listen":"\#(path)","chardev":"c""#, "chardev"), (#","chardev":"c","fileDescriptorIndex":0"#, "chardev"),
        (#","fileDescriptorIndex":-1"#, "fileDescriptorIndex"), (#","chardev":"qv-x""#, "chardev"),
      ] {
        let reply = try await monitors.call("Add", #"{"id":"a"\#(parameters)}"#)
        #expect(reply == #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"\#(wrong)"}}"#, "\(parameters)")
      }
      #expect(try await monitors.call("Add", #"{"id":"a","fileDescriptorIndex":0}"#).contains("ENXIO"))
      #expect(try await monitors.listen("a", at: FilePath("/tmp/" + String(repeating: "x", count: 200))).contains("ENAMETOOLONG"))
      #expect(try await monitors.listen("a", at: FilePath("/nowhere/at/all")).contains("ENOENT"))
      #expect(try await monitors.listen("a", at: path) == "{}")
      #expect(try await monitors.listen("b", at: path).contains("EADDRINUSE"))
      #expect(try await monitors.listen("b") == "{}")
      #expect(try await monitors.listen("c") == MonitorsClient.error("TooManyMonitors", #""limit":2"#))
      #expect(!FileManager.default.fileExists(atPath: monitors.path("c").string))
    }
  }

  /// The malformed inputs of qmp-test; each makes an error, and the parser recovers.
  private static let malformed = [
    "{]", "{\u{1}", "{'execute': 'nonexistent', 'id':'\n'", #"{"execute": %p}"#, "null", "{}", "{'execute': true}",
    "{'execute': 'no-such-cmd', 'arguments': []}", "{'execute': 'no-such-cmd', 'extra': true}", "[1, 2]", "{ 'a' : }",
  ]

  @Test("greeting, errors before and after negotiation, malformed input, ids", arguments: Backend.allCases) @EventLoopActor
  func protocolConformance(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      #expect(try await monitors.listen("extra") == "{}")
      let client = try await monitors.connect("extra")
      #expect(client.text.contains(#""version": "#) && client.text.contains(#""capabilities": ["oob"]"#))
      try await client.write(#"{"execute":"query-version","id":"early"}"#)
      try await client.wait(for: "Expecting capabilities negotiation with 'qmp_capabilities'")
      @EventLoopActor func malformed(_ when: String) async throws {
        for (index, input) in Self.malformed.enumerated() {
          client.forget()
          // 0xFF, as QEMU's own test uses it, ends what the input has left open.
          try await client.write(Array(input.utf8) + [0xFF] + Array(#"{"execute":"no-such-cmd","id":\#(index)}"#.utf8))
          try await client.wait(for: #""id": \#(index)"#)
          try await client.wait("the line's end") { $0.received.last == UInt8(ascii: "\n") }
          let errors = client.text.split(whereSeparator: \.isNewline).filter { $0.contains(#""error""#) }
          #expect(errors.count >= 2, "\(when): \(input) gave \(client.text)")
        }
      }
      try await malformed("before")
      #expect(try await monitors.listed("extra")?.contains(#""state":"active","connected":true,"negotiated":false"#) == true)
      client.forget()
      try await client.write(#"{"execute":"qmp_capabilities","arguments":{"enable":["fake"]},"id":1}"#)
      try await client.wait(for: "fake")
      try await client.write(#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]},"id":2}"#)
      try await client.wait(for: #"{"return": {}, "id": 2}"#)
      try await malformed("after")
      try await client.write(#"{"execute":"qmp_capabilities","id":3}"#)
      try await client.wait(for: "Capabilities negotiation is already complete, command ignored")
      try await client.write(#"{"exec-oob":"query-version","id":4}"#)
      try await client.wait(for: "The command query-version does not support OOB")
      try await client.write(#"{"execute":"getfd","id":5}"#)
      try await client.wait(for: "Parameter 'fdname' is missing")
      try await client.write(#"{"execute":"query-version","id":{"a":[1,null]}}"#)
      try await client.wait(for: #""id": {"a": [1, null]}}"#)
      #expect(try await monitors.listed("extra")?.contains(#""state":"active","connected":true,"negotiated":true"#) == true)
    }
  }

  @Test("out-of-band commands overtake one that blocks; malformed ones stay in order", arguments: Backend.allCases) @EventLoopActor
  func outOfBand(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      #expect(try await monitors.listen("extra") == "{}")
      let client = try await monitors.connect("extra")
      try await client.write(#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#)
      try await client.wait(for: Self.negotiated)
      try await backend.withBlockingCommand(id: "blocks-1", in: daemon.directory) { blocks, unblock in
        client.forget()
        try await client.write(blocks + #"{"exec-oob":"migrate-pause","id":"oob-1"}"#)
        try await client.wait(for: #""id": "oob-1""#)
        #expect(!client.text.contains("blocks-1"))
        try await unblock(client)
        try await client.wait(for: #""id": "blocks-1""#)
      }
      try await backend.withBlockingCommand(id: "blocks-2", in: daemon.directory) { blocks, unblock in
        client.forget()
        try await client.write(blocks + #"{"id":"err-2"}{"execute":"query-name","id":"last"}{"exec-oob":"migrate-pause","id":"oob-2"}"#)
        // It came behind them, so they are known and wait.
        try await client.wait(for: #""id": "oob-2""#)
        #expect(!client.text.contains("blocks-2") && !client.text.contains("err-2") && !client.text.contains("last"))
        try await unblock(client)
        try await client.wait(for: #""id": "last""#)
        let order = ["oob-2", "blocks-2", "err-2", "last"].map { client.text.range(of: #""id": "\#($0)""#)?.lowerBound }
        #expect(order.allSatisfy { $0 != nil } && order.compactMap(\.self) == order.compactMap(\.self).sorted(), "\(client.text)")
        #expect(client.text.contains("QMP input lacks member 'execute'"))
      }
      #expect(try await monitors.remove("extra") == "{}")
    }
  }

  @Test("before the machine is made nothing can be added, and that is said; then it can", arguments: Backend.allCases) @EventLoopActor
  func preconfig(backend: Backend) async throws {
    try await backend.withDaemon(preconfig: true) { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      let early = "permitted only after machine initialization has completed"
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains(#""status":"prelaunch""#))
      for reply in [
        try await monitors.listen("extra"),
        try await daemon.connect().call("io.systemd.QemuMachineInstance.AcquireQMP", flags: #","upgrade":true"#),
      ] {
        #expect(reply.contains(#"{"error":"#) && reply.contains(early), "\(reply)")
      }
      #expect(!FileManager.default.fileExists(atPath: monitors.path("extra").string), "nothing is left")
      #expect(try await monitors.listed("extra") == nil)
      #expect(try await monitors.remove(Backend.commandLineMonitor).contains("NotDynamic"))
      #expect(try await daemon.call("io.systemd.MachineInstance.Resume").contains(early))

      let made = try await daemon.call("io.qmpvarlink.QMP.Execute", #"{"command":"x-exit-preconfig"}"#)
      #expect(made == #"{"parameters":{"return":{}}}"#)
      for _ in 0..<2 {
        #expect(try await monitors.listen("extra") == "{}")
        let client = try await monitors.connect("extra")
        try await client.write(Self.negotiate + #"{"execute":"x-exit-preconfig","id":1}"#)
        try await client.wait(for: "The command is permitted only before machine initialization")
        #expect(try await monitors.remove("extra") == "{}")
      }
    }
  }

  @Test("an argument of any type that is missing is an error, and null is an argument", arguments: Backend.allCases) @EventLoopActor
  func missingAnyArgument(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      #expect(try await monitors.listen("extra") == "{}")
      let client = try await monitors.connect("extra")
      try await client.write(Self.negotiate)
      try await client.wait(for: Self.negotiated)
      try await client.write(#"{"execute":"qom-set","arguments":{"path":"/machine","property":"rtc-time"},"id":"missing"}"#)
      try await client.wait(for: #"{"id": "missing", "error": {"class": "GenericError", "desc": "Parameter 'value' is missing"}}"#)
      try await client.write(#"{"execute":"qom-set","arguments":{"path":"/machine","property":"nope","value":null},"id":"null"}"#)
      try await client.wait(for: #"{"id": "null", "error": {"class": "GenericError", "desc": "Property "#)
    }
  }

  // MARK: QEMU's functional tests

  @Test("added, connected, negotiated, used, removed: twice, with the same id and path", arguments: Backend.allCases) @EventLoopActor
  func cycle(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      for round in 0..<2 {
        #expect(try await monitors.listen("extra") == "{}", "round \(round)")
        let client = try await monitors.connect("extra")
        try await client.write(Self.negotiate + #"{"execute":"query-version","id":1}"#)
        try await client.wait(for: #""id": 1}"#)
        // Removed with commands on their way: they are answered, then comes the end.
        try await client.write((0..<20).map { #"{"execute":"query-version","id":"last \#($0)"}"# }.joined())
        let removal = try daemon.connect()
        try await removal.send("\(MonitorsClient.interface).Remove", #"{"id":"extra"}"#)
        try await client.waitForEnd()
        #expect(try await removal.receive() == "{}")
        let answered = client.text.components(separatedBy: #""id": "last "#).count - 1
        #expect(client.received.last == UInt8(ascii: "\n") && (0..<answered).allSatisfy { client.text.contains(#""id": "last \#($0)""#) })
        #expect(!FileManager.default.fileExists(atPath: monitors.path("extra").string))
        #expect(try await monitors.listed("extra") == nil)
        #expect(try await !daemon.qmp(#"{"execute":"query-chardev"}"#).contains("extra"))
      }
    }
  }

  @Test("what a client sent before its monitor was removed is answered in full", arguments: Backend.allCases) @EventLoopActor
  func outstandingReplies(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      #expect(try await monitors.listen("extra") == "{}")
      let client = try await monitors.connect("extra")
      client.reads = false
      try await client.write(Self.negotiate + #"{"execute":"query-qmp-schema"}{"execute":"query-qmp-schema","id":"second"}"#)
      // All of it has been taken from the client by now: its session was served before this call came.
      while try await !monitors.call("List").contains(#""negotiated":true"#) {}
      let removal = try daemon.connect()
      try await removal.send("\(MonitorsClient.interface).Remove", #"{"id":"extra"}"#)
      while try await monitors.listed("extra")?.contains(#""state":"removing""#) == false {}
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
      client.reads = true
      try await client.waitForEnd()
      let lines = client.text.split(whereSeparator: \.isNewline)
      #expect(lines.count == 4 && lines[2].count > 100_000 && lines[3].hasSuffix(#""id": "second"}"#))
      #expect(try await removal.receive() == "{}")
    }
  }

  @Test("a client that removes its own monitor by raw QMP meets its QEMU's rule; afterwards it can be removed", arguments: Backend.allCases)
  @EventLoopActor
  func selfRemoval(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      #expect(try await monitors.listen("extra") == "{}")
      let client = try await monitors.connect("extra")
      try await client.write(Self.negotiate + backend.removal(of: "extra"))
      try await client.wait(for: #""id": "removal""#)
      if backend == .commands {
        #expect(client.text.contains(#"{"return": {}, "id": "removal"}"#))
      } else {
        #expect(client.text.contains("Cannot delete the current QMP monitor"))
        try await client.write(#"{"execute":"query-name","id":"still here"}"#)
        try await client.wait(for: "still here")
      }
      if backend == .commands {
        // Nothing of it is left here either.
        try await client.waitForEnd()
        while try await monitors.listed("extra") != nil {}
        #expect(try await monitors.remove("extra") == MonitorsClient.error("NoSuchMonitor", #""id":"extra""#))
        #expect(try await !daemon.qmp(#"{"execute":"query-chardev"}"#).contains("extra"))
      } else {
        #expect(try await monitors.remove("extra") == "{}")
        try await client.waitForEnd()
      }
      #expect(try await monitors.listen("extra") == "{}")
      let next = try await monitors.connect("extra")
      try await next.write(Self.negotiate)
      try await next.wait(for: Self.negotiated)
    }
  }

  @Test("events come after the negotiation, and to every monitor", arguments: Backend.allCases) @EventLoopActor
  func events(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      #expect(try await monitors.listen("one") == "{}")
      #expect(try await monitors.listen("two") == "{}")
      let one = try await monitors.connect("one")
      let two = try await monitors.connect("two")
      try await one.write(Self.negotiate)
      try await one.wait(for: Self.negotiated)
      #expect(try await daemon.call("io.systemd.MachineInstance.Pause") == "{}")
      try await one.wait(for: #""event": "STOP""#)
      try await two.write(Self.negotiate)
      try await two.wait(for: Self.negotiated)
      #expect(try await daemon.call("io.systemd.MachineInstance.Resume") == "{}")
      for client in [one, two] { try await client.wait(for: #""event": "RESUME""#) }
      #expect(!two.text.contains("STOP"))
    }
  }

  @Test("a monitor on a connected socket goes with its client", arguments: Backend.allCases, [false, true]) @EventLoopActor
  func passedConnection(backend: Backend, halfCloses: Bool) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      let pair = try SocketPair()
      let theirs = try pair.theirs.duplicate()
      let client = try Peer(pair.takeOurs())
      #expect(try await monitors.add("extra", descriptor: theirs.raw) == "{}")
      _ = consume theirs
      try await client.wait(for: #""QMP""#)
      #expect(try await monitors.listed("extra")?.contains(#""connected":true"#) == true)
      try await client.write(Self.negotiate + #"{"execute":"query-name","id":1}"#)
      if halfCloses {
        client.endWriting()
        try await client.waitForEnd()
        #expect(client.text.contains(#""id": 1}"#))
      } else {
        client.close()
      }
      while try await monitors.listed("extra") != nil {}
      #expect(try await !daemon.qmp(#"{"execute":"query-chardev"}"#).contains("extra"))
    }
  }

  @Test("clients come one after the other, each with a greeting and a negotiation of its own", arguments: Backend.allCases)
  @EventLoopActor
  func reconnect(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      // On a socket that is passed, which stays its owner's.
      let path = monitors.path("passed")
      let listener = try ListeningSocket(at: path)
      let reply = try await monitors.add("passed", descriptor: listener.descriptorNumber)
      #expect(reply == "{}")
      #expect(try await monitors.listen("own") == "{}")
      for round in 0..<3 {
        for id in ["passed", "own"] {
          let client = try await monitors.connect(id)
          let waiting = try Peer(.connected(to: monitors.path(id)))
          try await client.write(Self.negotiate + #"{"execute":"query-version","id":\#(round)}"#)
          try await client.wait(for: #""id": \#(round)}"#)
          #expect(waiting.received.isEmpty, "one at a time")
          if round == 1 { client.close() } else { client.endWriting() }
          try await waiting.wait(for: #""QMP""#)
          try await waiting.write(#"{"execute":"query-version"}"#)
          try await waiting.wait(for: "Expecting capabilities negotiation")
          waiting.close()
        }
      }
      for id in ["passed", "own"] { #expect(try await monitors.remove(id) == "{}") }
      #expect(try await monitors.listed("passed") == nil)
    }
  }

  @Test("removed in the middle of everything, ten times", arguments: Backend.allCases) @EventLoopActor
  func removedUnderLoad(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      for round in 0..<10 {
        #expect(try await monitors.listen("extra") == "{}")
        let client = try await monitors.connect("extra")
        try await client.write(Self.negotiate)
        try await client.wait(for: Self.negotiated)
        let load = (0..<3).map { _ in #"{"execute":"query-qmp-schema"}{"execute":"stop"}{"execute":"cont"}"# }.joined()
        try await client.write(load)
        if round.isMultiple(of: 2) { client.close() }
        #expect(try await monitors.remove("extra") == "{}")
        if !round.isMultiple(of: 2) { try await client.waitForEnd() }
        #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains(#""status":"#))
      }
    }
  }

  // MARK: what is ours

  @Test("monitors that a session adds by itself are listed, and can be removed; their chardevs stay", arguments: Backend.allCases)
  @EventLoopActor
  func foreignMonitors(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      try await monitors.makeChardev("free")
      #expect(try await daemon.qmp(backend.addition(of: "theirs", chardev: "free")) == #"{"return": {}}"#)
      let listed = try #require(try await monitors.listed("theirs"))
      #expect(listed.contains(#""mode":"qmp","chardev":"free","dynamic":true,"control":false"#) && !listed.contains("state"))
      #expect(try await monitors.listen("theirs") == MonitorsClient.error("MonitorExists", #""id":"theirs""#))
      #expect(!FileManager.default.fileExists(atPath: monitors.path("theirs").string))
      #expect(try await monitors.remove("theirs") == "{}")
      #expect(try await monitors.listed("theirs") == nil)
      #expect(try await daemon.qmp(#"{"execute":"query-chardev"}"#).contains(#""free""#))
      #expect(try await monitors.listen("theirs") == "{}")
    }
  }

  @Test("a session's monitor is listed like any other, and removing it ends the session in order", arguments: Backend.allCases)
  @EventLoopActor
  func sessionMonitors(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      let session = try await daemon.acquireQMP()
      try await session.write(Self.negotiate)
      try await session.wait(for: Self.negotiated)
      let sessions = try await daemon.call("io.qmpvarlink.Sessions.List")
      let id = try #require(sessions.components(separatedBy: #""id":""#).last?.prefix { $0 != "\"" })
      let listed = try await monitors.listed(String(id))
      #expect(listed?.contains(#""dynamic":true,"control":false,"state":"active","connected":true,"negotiated":true"#) == true)
      try await session.write(#"{"execute":"query-name","id":"outstanding"}"#)
      while try await !daemon.call("io.qmpvarlink.Sessions.List").contains(#""commandsInFlight":0"#) {}
      #expect(try await monitors.remove(String(id)) == "{}")
      try await session.waitForEnd()
      #expect(session.text.contains("outstanding"))
    }
  }

  @Test("a watch begins with all monitors, and tells of every change of ours", arguments: Backend.allCases) @EventLoopActor
  func watch(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      let watcher = try daemon.connect()
      let first = try await watcher.call("\(MonitorsClient.interface).Watch", flags: #","more":true"#)
      #expect(first.contains(#""change":"current""#) && first.contains(Backend.commandLineMonitor) && first.contains(#""control":true"#))
      #expect(try await monitors.listen("extra") == "{}")
      let added = try await watcher.receive()
      #expect(added.contains(#""change":"added","monitors":[{"id":"extra""#) && added.contains(#""state":"waiting""#), "\(added)")
      let client = try await monitors.connect("extra")
      #expect(try await watcher.receive().contains(#""change":"changed","monitors":[{"id":"extra""#))
      client.close()
      #expect(try await watcher.receive().contains(#""state":"draining""#))
      #expect(try await watcher.receive().contains(#""state":"waiting""#))
      #expect(try await monitors.remove("extra") == "{}")
      #expect(try await watcher.receive().contains(#""state":"removing""#))
      #expect(try await watcher.receive().contains(#""change":"removed""#))
      #expect(try await monitors.call("Watch") == #"{"error":"org.varlink.service.ExpectedMore"}"#)
    }
  }

  @Test("a pretty monitor is pretty, and its session ends in order", arguments: Backend.allCases) @EventLoopActor
  func pretty(backend: Backend) async throws {
    try await backend.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      #expect(try await monitors.listen("extra", pretty: true) == "{}")
      for _ in 0..<2 {
        let client = try await monitors.connect("extra")
        try await client.write(Self.negotiate + #"{"execute":"no-such-cmd"}{"execute":"query-name","id":1}{"execute":"nope","id":2}{"a":"#)
        client.endWriting()
        try await client.waitForEnd()
        #expect(client.text.hasPrefix("{\r\n    \"QMP\": {\r\n"))
        #expect(client.text.contains("\r\n    \"return\": {\r\n    }\r\n}\r\n{\r\n    \"error\": {\r\n"))
        #expect(client.text.contains("    \"id\": 2,\r\n") && client.text.hasSuffix("\r\n    }\r\n}\r\n"), "\(client.text)")
        #expect(client.text.components(separatedBy: "\r\n}\r\n").count == 6, "\(client.text)")
      }
      #expect(try await monitors.remove("extra") == "{}")
    }
  }

  @Test("QEMU's own shell works on a monitor's path, twice") @EventLoopActor
  func foreignClient() async throws {
    try await Backend.qemu.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      for _ in 0..<2 {
        #expect(try await monitors.listen("extra") == "{}")
        for _ in 0..<2 {
          let shell = try await command("qmp-shell", [monitors.path("extra").string], input: "query-status\nquery-name\n")
          #expect(shell.status == 0, "\(shell.error)")
          #expect(shell.output.contains(#"{"return": {"status": "running", "running": true}}"#), "\(shell.output)")
          #expect(shell.output.contains(#"{"return": {"name": "test"}}"#), "\(shell.output)")
        }
        #expect(try await monitors.remove("extra") == "{}")
      }
    }
  }

  @Test("monitors come and go, Describe answers, and nothing grows") @EventLoopActor
  func cycles() async throws {
    try await Backend.qemu.withDaemon { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      let qemu = try daemon.qemu()
      let spectator = try await daemon.acquireQMP()
      try await spectator.write(Self.negotiate)
      try await spectator.wait(for: Self.negotiated)
      let describing = try daemon.connect()
      let calling = try daemon.connect()
      @EventLoopActor func round(_ number: Int) async throws {
        let path = monitors.path("extra")
        let added = try await calling.call("\(MonitorsClient.interface).Add", #"{"id":"extra","listen":"\#(path)"}"#)
        try #require(added == "{}")
        if number.isMultiple(of: 4) {
          let client = try Peer(.connected(to: path))
          try await client.write(Self.negotiate + #"{"execute":"query-name"}"#)
          if number.isMultiple(of: 8) { try await client.wait(for: Self.negotiated) }
          client.close()
        }
        let described = try await describing.call("io.systemd.MachineInstance.Describe")
        try #require(described == #"{"parameters":{"running":true,"status":"running"}}"#)
        try #require(try await calling.call("\(MonitorsClient.interface).Remove", #"{"id":"extra"}"#) == "{}")
      }
      for number in 0..<50 { try await round(number) }
      let before = try await daemon.settledDescriptorCounts()
      let memory = [RunningDaemon.status(of: qemu, "VmRSS"), RunningDaemon.status(of: daemon.process, "VmRSS")]
      for number in 0..<Campaign.cycles { try await round(number) }
      #expect(try await daemon.settledDescriptorCounts() == before)
      let after = [RunningDaemon.status(of: qemu, "VmRSS"), RunningDaemon.status(of: daemon.process, "VmRSS")]
      print("\(Campaign.cycles) cycles: QEMU \(memory[0]) to \(after[0]) KiB, the daemon \(memory[1]) to \(after[1]) KiB")
      // Room for what an allocator keeps; a leak of a monitor's 4 KiB shows in a thousand rounds.
      for (before, after) in zip(memory, after) { #expect(after - before < 2048 + Campaign.cycles / 10) }
      try await spectator.write(#"{"execute":"query-name","id":"still here"}"#)
      try await spectator.wait(for: "still here")
      let chardevs = try await daemon.qmp(#"{"execute":"query-chardev"}"#)
      #expect(!chardevs.contains("extra"))
    }
  }
}
