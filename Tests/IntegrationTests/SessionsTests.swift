import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("io.qmpvarlink.Sessions, limits and access", .onEventLoop)
struct SessionsTests {
  private static func machine(_ options: String...) -> [String] {
    ["run", "--machine", "test", "--accel", "tcg", "--memory", "64M"] + options + ["--", "-machine", "none"]
  }

  @Test("sessions are listed with their peer and their counts, watched, and closed") @EventLoopActor
  func listWatchClose() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let watcher = try daemon.connect()
      #expect(
        try await watcher.call("io.qmpvarlink.Sessions.Watch", flags: #","more":true"#)
          == #"{"parameters":{"change":"current","sessions":[]},"continues":true}"#)
      let session = try await daemon.acquireQMP()
      let id = try #require(session.text.split(separator: "\"").first { $0.hasPrefix("qv-") })
      let opened = try await watcher.receive()
      #expect(opened.contains(#""change":"opened""#) && opened.contains(#""id":"\#(id)""#))

      let commands = #"{"execute": "qmp_capabilities"} {"execute": "query-name"}"#
      try await session.write(commands)
      try await session.wait(for: #"{"name""#)
      let listed = try await daemon.call("io.qmpvarlink.Sessions.List")
      #expect(listed.contains(#""uid":\#(getuid()),"gid":\#(getgid()),"pid":\#(getpid()),"command":""#), "\(listed)")
      #expect(listed.contains(#""monitor":"\#(id)","chardev":"\#(id)""#))
      #expect(
        listed.contains(#""bytesIn":\#(commands.utf8.count),"#) && listed.contains(#""commandsInFlight":0,"state":"active""#), "\(listed)")

      #expect(
        try await daemon.call("io.qmpvarlink.Sessions.Close", #"{"id":"nope"}"#)
          == #"{"error":"io.qmpvarlink.Sessions.NoSuchSession","parameters":{"id":"nope"}}"#)
      #expect(try await daemon.call("io.qmpvarlink.Sessions.Close", #"{"id":"\#(id)"}"#) == "{}")
      try await session.waitForEnd()
      #expect(try await watcher.receive().contains(#""change":"changed""#))
      #expect(try await watcher.receive().contains(#""change":"closed""#))
      #expect(try await daemon.call("io.qmpvarlink.Sessions.List") == #"{"parameters":{"sessions":[]}}"#)
    }
  }

  @Test("over the limit there is an error with the limit in it, and room again when a session has ended") @EventLoopActor
  func limits() async throws {
    _ = try await withDaemon(Self.machine("--max-sessions", "3", "--max-sessions-per-user", "2")) { daemon in
      let first = try await daemon.acquireQMP()
      let second = try await daemon.acquireQMP()
      let refused = try await daemon.connect().call("io.systemd.QemuMachineInstance.AcquireQMP", flags: #","upgrade":true"#)
      #expect(refused == #"{"error":"io.systemd.QemuMachineInstance.TooManySessions","parameters":{"limit":2,"perUser":true}}"#)
      first.endWriting()
      try await first.waitForEnd()
      let third = try await daemon.acquireQMP()
      withExtendedLifetime((second, third)) {}
    }
    _ = try await withDaemon(Self.machine("--max-sessions", "0")) { daemon in
      let refused = try await daemon.connect().call("io.systemd.QemuMachineInstance.AcquireQMP", flags: #","upgrade":true"#)
      #expect(refused == #"{"error":"io.systemd.QemuMachineInstance.TooManySessions","parameters":{"limit":0,"perUser":false}}"#)
    }
  }

  @Test("a session with query access asks and changes nothing; refusals stand in their place among the replies") @EventLoopActor
  func queryAccess() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let connection = try daemon.connect()
      let acquired = try await connection.call(
        "io.systemd.QemuMachineInstance.AcquireQMP", #"{"access":"query"}"#, flags: #","upgrade":true"#)
      #expect(acquired.hasPrefix(#"{"parameters":{"id":"qv-"#))
      let session = connection.peer
      try await session.write(#"{"execute":"qmp_capabilities"}{"execute":"query-name","id":1}{"execute":"stop","id":2}"#)
      try await session.write(
        #"{"execute":"query-status","id":3}{ "execute" : "qom-get", "id": {"a": 4} }{"exec-oob":"migrate-pause","id":5}{"execute":"query-kvm","id":6}"#
      )
      try await session.write(#"{"execute":"\u0073top","id":7}{"execute":"device_add"}{"execute":"query-name","id":8}"#)
      try await session.wait(for: #""id": 8}"#)
      let lines = session.text.split(whereSeparator: \.isNewline).dropFirst()
      let ids = lines.map { line in
        line.split(separator: #""id":"#).dropFirst().first.map { $0.trimmingPrefix(" ").prefix { $0 != "," && $0 != "}" } } ?? "-"
      }
      #expect(ids == ["-", "1", "2", "3", #"{"a":4"#, "5", "6", "7", "-", "8"].map { $0[...] }, "\(session.text)")
      #expect(
        lines.dropFirst(2).first
          == #"{"id":2,"error":{"class":"GenericError","desc":"The command stop is not permitted on a session with query access"}}"#)
      #expect(session.text.contains(#"{"return": {"status": "running", "running": true}, "id": 3}"#))
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
      let listed = try await daemon.call("io.qmpvarlink.Sessions.List")
      #expect(listed.contains(#""access":"query""#))

      // What cannot be read cannot be judged.
      try await session.write("{'execute': 'stop'}")
      try await session.waitForEnd()
      #expect(session.text.hasSuffix("and ends here\"}}\r\n"), "\(session.text.suffix(300))")
      let wrong = try await daemon.connect().call(
        "io.systemd.QemuMachineInstance.AcquireQMP", #"{"access":"root"}"#, flags: #","upgrade":true"#)
      #expect(wrong.contains("InvalidParameter"))
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains(#""status":"running""#))
    }
  }

  @Test("every query of this QEMU has been looked at") @EventLoopActor
  func reviewedQueries() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let schema = try await daemon.qmp(#"{"execute":"query-qmp-schema"}"#)
      let names = schema.split(separator: #""name": ""#).dropFirst().map { $0.prefix { $0 != "\"" } }
      let queries = Set(
        names.filter { $0.hasPrefix("query-") || $0.hasPrefix("x-query-") }.filter { schema.contains(#""name": "\#($0)", "ret-type""#) })
      #expect(queries.count > 80)
      let connection = try daemon.connect()
      _ = try await connection.call("io.systemd.QemuMachineInstance.AcquireQMP", #"{"access":"query"}"#, flags: #","upgrade":true"#)
      try await connection.peer.write(
        #"{"execute":"qmp_capabilities"}"#
          + queries.sorted().map { #"{"execute":"\#($0)","arguments":{"no such argument":1},"id":"\#($0)"}"# }.joined())
      connection.peer.endWriting()
      try await connection.peer.waitForEnd()
      let refused = connection.peer.text.split(whereSeparator: \.isNewline).filter { $0.contains("not permitted") }
      #expect(refused.allSatisfy { $0.contains("query access: ") }, "refused for a reason: \(refused)")
      #expect(refused.count == 3, "\(refused)")
    }
  }

  @Test("a command that never returns: the session waits, detached and visible, and counts against the limit") @EventLoopActor
  func stuckCommand() async throws {
    _ = try await withDaemon(Self.machine("--max-sessions", "1", "--response-limit", "2")) { daemon in
      let fifo = daemon.directory.appending("fifo")
      try #require(await command("mkfifo", [fifo.string]).status == 0)
      let watcher = try daemon.connect()
      _ = try await watcher.call("io.qmpvarlink.Sessions.Watch", flags: #","more":true"#)
      let session = try await daemon.acquireQMP()
      let node = #"{"driver": "file", "node-name": "blocked", "filename": "\#(fifo)", "read-only": true}"#
      try await session.write(#"{"execute": "qmp_capabilities"}{"execute": "blockdev-add", "arguments": \#(node)}"#)
      try await session.wait(for: #"{"return": {}}"#)
      session.close()
      try await known(within: .seconds(5)) {
        for change in ["opened", "changed", "changed"] {
          let told = try await watcher.receive()
          #expect(told.contains(#""change":"\#(change)""#))
        }
      }
      let listed = try await daemon.call("io.qmpvarlink.Sessions.List")
      #expect(listed.contains(#""commandsInFlight":1,"state":"stuck""#), "\(listed)")
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe") == #"{"parameters":{"running":false,"status":"unresponsive"}}"#)
      let refused = try await daemon.connect().call("io.systemd.QemuMachineInstance.AcquireQMP", flags: #","upgrade":true"#)
      #expect(refused.contains("TooManySessions"))
      let writer = open(fifo.string, O_WRONLY)
      defer { close(writer) }
      #expect(try await watcher.receive().contains(#""change":"closed""#))
      while try await !daemon.call("io.systemd.MachineInstance.Describe").contains("running\":true") {}
      _ = try await daemon.acquireQMP()
    }
  }
}
