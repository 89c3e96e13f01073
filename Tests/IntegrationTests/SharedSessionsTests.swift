import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// Begins what goes on beside the test.
@EventLoopActor
private func begin<Result: Sendable>(_ body: @escaping @EventLoopActor @Sendable () async throws -> Result) -> Task<Result, any Error> {
  Task(executorPreference: EventLoop.shared) { try await body() }
}

/// Sessions that share a monitor, on a QEMU that can add monitors and on one that cannot.
@Suite("sessions that share a monitor", .onEventLoop, .serialized)
struct SharedSessionsTests {
  /// The lines that a session got.
  @EventLoopActor
  private static func lines(_ session: Peer) -> [Substring] { session.text.split(separator: "\r\n") }

  /// The ids of the replies that a session got, in their order, each being a whole number.
  @EventLoopActor
  private static func ids(_ session: Peer) -> [Int] {
    lines(session).compactMap { line in line.firstMatch(of: /"id": (\d+)[,}]/).flatMap { Int($0.output.1) } }
  }

  @Test("64 under load: every reply is its caller's, in order, and none is much slower than another", arguments: SessionKind.sharing)
  @EventLoopActor
  func load(kind: SessionKind) async throws {
    try await kind.withDaemon { daemon in
      let count = 64
      let commands = 60
      var sessions: [Peer] = []
      for _ in 0..<count { sessions.append(try await daemon.negotiated()) }
      let queries = ["query-name", "query-status", "query-version", "nope"]
      let start = ContinuousClock.now
      let workers = sessions.enumerated().map { number, session in
        begin {
          var text = ""
          // All of it at once: more than the session may have in QEMU, and more than its buffers take.
          for command in 0..<commands { text += #"{"execute": "\#(queries[command % 4])", "id": \#(number * 1000 + command)}"# + "\r\n" }
          try await session.write(text)
          try await session.wait(for: #""id": \#(number * 1000 + commands - 1)"#)
          return ContinuousClock.now - start
        }
      }
      var times: [Duration] = []
      for worker in workers { times.append(try await worker.value) }
      let total = ContinuousClock.now - start
      for (number, session) in sessions.enumerated() {
        #expect(Self.ids(session) == (0..<commands).map { number * 1000 + $0 })
        session.close()
      }
      let slowest = try #require(times.max())
      let fastest = try #require(times.min())
      print(
        "\(kind.rawValue): \(count) sessions, \(count * commands) commands in \(total); the slowest took \(slowest / fastest) times the fastest"
      )
      // Whoever queues as much as the others is done when they are.
      #expect(slowest / fastest < 3)
    }
  }

  @Test("one session's garbage changes nothing for the others", arguments: SessionKind.sharing) @EventLoopActor
  func garbage(kind: SessionKind) async throws {
    try await kind.withDaemon { daemon in
      var sessions: [Peer] = []
      for _ in 0..<6 { sessions.append(try await daemon.negotiated()) }
      let isOver = Promise<Void>()
      let hostile = begin {
        var random = SplitMix(seed: 42)
        var written = 0
        while isOver.result == nil {
          let peer = try await daemon.acquire()
          if Bool.random(using: &random) { try await peer.write(#"{"execute":"qmp_capabilities"}"#) }
          for _ in 0..<40 where isOver.result == nil {
            var bytes: [UInt8] = []
            for _ in 0..<Int.random(in: 1..<40, using: &random) { bytes += ConformanceInputs.tokens.pick(&random) }
            written += bytes.count
            try await peer.write(bytes)
          }
          peer.close()
        }
        return written
      }
      let workers = sessions.enumerated().map { number, session in
        begin {
          var random = SplitMix(seed: UInt64(number))
          for command in 0..<300 {
            let id = number * 1000 + command
            let spaces = String(repeating: " ", count: Int.random(in: 0..<20, using: &random))
            // In two pieces, with whatever the hostile one writes between them.
            try await session.write(#"{"execute": \#(spaces)"query-na"#)
            if Bool.random(using: &random) { try await quiet() }
            try await session.write(#"me", "id": \#(id)}"#)
            if Int.random(in: 0..<4, using: &random) == 0 { try await session.wait(for: #""id": \#(id)}"#) }
          }
          try await session.wait(for: #""id": \#(number * 1000 + 299)}"#)
        }
      }
      for worker in workers { try await worker.value }
      isOver.fulfil()
      let written = try await hostile.value
      print("\(kind.rawValue): \(written) bytes of garbage meanwhile")
      #expect(written > 1000)
      for (number, session) in sessions.enumerated() {
        #expect(Self.lines(session) == (0..<300).map { "{\"return\": {\"name\": \"test\"}, \"id\": \(number * 1000 + $0)}" })
      }
    }
  }

  @Test("clients that go at any moment: nothing is left", arguments: SessionKind.sharing) @EventLoopActor
  func hangUps(kind: SessionKind) async throws {
    try await kind.withDaemon { daemon in
      // What is made once, on first use, is there before the count; and one that stays notices it if a reply is not its own.
      try await daemon.negotiated().close()
      try await daemon.quiet()
      let before = try await daemon.daemon.settledDescriptorCounts()
      let witness = try await daemon.negotiated()
      let pieces = [
        #"{"execute":"qmp_capabilities"}"#, #"{"execute":"query-qmp-schema"}"#, #"{"execute":"query-name"}"#, #"{"execute":"stop"}"#,
        #"{"execute":"cont"}"#, "{]", "nonsense ", #"{"execute":"query-ver"#, "\u{1}", "[1,", "\"",
      ]
      let storms = (0..<5).map { number in
        begin {
          var random = SplitMix(seed: UInt64(number) + 7)
          for _ in 0..<100 {
            let peer = try await daemon.acquire()
            for _ in 0..<Int.random(in: 0..<7, using: &random) { try await peer.write(pieces.pick(&random)) }
            switch Int.random(in: 0..<3, using: &random) {
            case 0: peer.endWriting(); try await peer.waitForEnd()
            case 1: try await quiet()
            default: break
            }
            peer.close()
          }
        }
      }
      for number in 0..<200 {
        try await witness.write(#"{"execute":"query-name","id":\#(number)}"#)
        try await witness.wait(for: #""id": \#(number)}"#)
      }
      for storm in storms { try await storm.value }
      #expect(Self.ids(witness) == Array(0..<200))
      witness.close()
      try await daemon.quiet()
      #expect(try await daemon.daemon.settledDescriptorCounts() == before)
    }
  }

  @Test("a client that goes takes its own commands with it, and no others", arguments: SessionKind.sharing) @EventLoopActor
  func cancelled(kind: SessionKind) async throws {
    try await kind.withDaemon { daemon in
      let watching = try await daemon.negotiated()
      let other = try await daemon.negotiated()
      let leaving = try await daemon.negotiated()
      // A stopped QEMU takes nothing: what is sent now waits.
      let qemu = try daemon.daemon.qemu()
      kill(qemu, SIGSTOP)
      try await leaving.write(String(repeating: #"{"execute":"query-name"}"#, count: 20) + #"{"execute":"stop"}"#)
      try await quiet()
      try await other.write(#"{"execute":"query-name","id":"other"}"#)
      leaving.close()
      try await quiet()
      kill(qemu, SIGCONT)
      try await other.wait(for: #"{"return": {"name": "test"}, "id": "other"}"#)
      try await other.write(#"{"execute":"query-status","id":"status"}"#)
      try await other.wait(for: #""id": "status"}"#)
      #expect(!watching.text.contains("STOP"))
    }
  }

  @Test("half-close: all is answered first, then the end of file", arguments: SessionKind.sharing) @EventLoopActor
  func halfClose(kind: SessionKind) async throws {
    try await kind.withDaemon { daemon in
      let session = try await daemon.negotiated()
      try await session.write(
        (0..<50).map { #"{"execute":"query-name","id":\#($0)}"# }.joined() + #"{"execute":"query-qmp-schema","id":50}[] {"#)
      session.endWriting()
      try await session.waitForEnd()
      #expect(Self.ids(session) == Array(0...50))
      #expect(session.text.hasSuffix("{\"error\": {\"class\": \"GenericError\", \"desc\": \"QMP input must be a JSON object\"}}\r\n"))
    }
  }

  @Test("a client that does not read hurts nobody, and is ended at its limit", arguments: SessionKind.sharing) @EventLoopActor
  func unread(kind: SessionKind) async throws {
    try await kind.withDaemon(["--unread-limit", "1"]) { daemon in
      let deaf = try await daemon.negotiated()
      deaf.reads = false
      try await deaf.write(String(repeating: #"{"execute":"query-qmp-schema"}"#, count: 20))
      let other = try await daemon.negotiated()
      for number in 0..<50 {
        try await other.write(#"{"execute":"query-name","id":\#(number)}"#)
        try await other.wait(for: #""id": \#(number)}"#)
      }
      other.close()
      try await daemon.quiet()
      #expect(daemon.daemon.log.contains("unread"))
    }
  }

  @Test("QEMU killed: each gets what it was owed, and the end of file", arguments: SessionKind.sharing) @EventLoopActor
  func killed(kind: SessionKind) async throws {
    try await kind.withDaemon { daemon in
      var sessions: [Peer] = []
      for _ in 0..<8 { sessions.append(try await daemon.negotiated()) }
      for (number, session) in sessions.enumerated() { try await session.write(#"{"execute":"query-name","id":\#(number)}"#) }
      for (number, session) in sessions.enumerated() { try await session.wait(for: #""id": \#(number)}"#) }
      for session in sessions { try await session.write(#"{"execute":"query-name","id":99}"#) }
      kill(try daemon.daemon.qemu(), SIGKILL)
      for (number, session) in sessions.enumerated() {
        try await session.waitForEnd()
        #expect([[number], [number, 99]].contains(Self.ids(session)))
        #expect(session.received.suffix(2) == [13, 10])
      }
    }
  }

  @Test(
    "QEMU stopped and continued: typed callers time out, sessions wait, and every reply is its caller's", arguments: SessionKind.sharing)
  @EventLoopActor
  func stopped(kind: SessionKind) async throws {
    try await kind.withDaemon(["--response-limit", "1"]) { daemon in
      var sessions: [Peer] = []
      for _ in 0..<8 { sessions.append(try await daemon.negotiated()) }
      let qemu = try daemon.daemon.qemu()
      let caller = try daemon.daemon.connect()
      for round in 0..<3 {
        // A reply of many reads, in the middle of which QEMU may stop.
        try await sessions[0].write(#"{"execute":"query-qmp-schema","id":\#(round * 2)}"#)
        kill(qemu, SIGSTOP)
        for session in sessions.dropFirst() { try await session.write(#"{"execute":"query-name","id":\#(round * 2)}"#) }
        #expect(try await caller.call("io.systemd.MachineInstance.Describe").contains("unresponsive"))
        for session in sessions { try await session.write(#"{"execute":"query-name","id":\#(round * 2 + 1)}"#) }
        kill(qemu, SIGCONT)
        for session in sessions { try await session.wait(for: #""id": \#(round * 2 + 1)}"#) }
        var described = ""
        repeat { described = try await caller.call("io.systemd.MachineInstance.Describe") } while described.contains("unresponsive")
      }
      for session in sessions { #expect(Self.ids(session) == Array(0..<6)) }
    }
  }

  @Test("a command that takes long: the others wait, typed callers are told, nothing is lost", arguments: SessionKind.sharing)
  @EventLoopActor
  func blocked(kind: SessionKind) async throws {
    try await kind.withDaemon(["--response-limit", "1"]) { daemon in
      let fifo = daemon.daemon.directory.appending("fifo")
      try #require(await command("mkfifo", [fifo.string]).status == 0)
      let blocking = try await daemon.negotiated()
      let other = try await daemon.negotiated()
      // QEMU opens a FIFO on its main thread, and waits there for somebody who writes.
      let node = #"{"driver":"file","node-name":"slow","filename":"\#(fifo)","read-only":true}"#
      try await blocking.write(#"{"execute":"blockdev-add","id":"slow","arguments":\#(node)}"#)
      try await quiet()
      try await other.write(#"{"execute":"query-name","id":"waits"}"#)
      let caller = try daemon.daemon.connect()
      var described = ""
      repeat { described = try await caller.call("io.systemd.MachineInstance.Describe") } while !described.contains("unresponsive")
      #expect(other.received.isEmpty)
      try FileDescriptor.open(fifo, .writeOnly).close()
      try await blocking.wait(for: #""id": "slow""#)
      try await other.wait(for: #"{"return": {"name": "test"}, "id": "waits"}"#)
      #expect(Self.lines(blocking).count == 1)
      repeat { described = try await caller.call("io.systemd.MachineInstance.Describe") } while described.contains("unresponsive")
      #expect(described.contains(#""status":"#))
    }
  }

  @Test("events come to those that have negotiated, once, in their place", arguments: SessionKind.sharing) @EventLoopActor
  func events(kind: SessionKind) async throws {
    try await kind.withDaemon { daemon in
      let silent = try await daemon.acquire()
      silent.forget()
      let listening = try await daemon.negotiated()
      let acting = try await daemon.negotiated()
      for number in 0..<20 {
        try await acting.write(#"{"execute":"stop","id":\#(2 * number)}{"execute":"cont","id":\#(2 * number + 1)}"#)
      }
      try await acting.wait(for: #""id": 39}"#)
      let expected = (0..<20).flatMap { ["STOP", "\(2 * $0)", "RESUME", "\(2 * $0 + 1)"] }
      let got = Self.lines(acting).compactMap {
        $0.firstMatch(of: /"event": "(\w+)"|"id": (\d+)/).map { String($0.output.1 ?? $0.output.2 ?? "") }
      }
      #expect(got == expected)
      // One that answers afterwards has seen all before.
      try await listening.write(#"{"execute":"query-name","id":1}"#)
      try await listening.wait(for: #""id": 1}"#)
      #expect(Self.lines(listening).count == 41)
      try await silent.write(#"{"execute":"query-name"}"#)
      try await silent.wait("a reply") { !$0.received.isEmpty }
      #expect(Self.lines(silent).count == 1)
    }
  }

  @Test("descriptors: add-fd takes the client's own, getfd is refused", arguments: SessionKind.sharing) @EventLoopActor
  func descriptors(kind: SessionKind) async throws {
    try await kind.withDaemon { daemon in
      let session = try await daemon.negotiated()
      let other = try await daemon.negotiated()
      let before = RunningDaemon.descriptorCount(of: try daemon.daemon.qemu())
      let file = try FileDescriptor.open("/dev/null", .readWrite)
      defer { try? file.close() }
      try await session.write(#"{"execute":"getfd","arguments":{"fdname":"a"},"id":1}"#, descriptors: [file.rawValue])
      try await session.wait(for: #"{"id": 1, "error": {"class": "GenericError", "desc": "The command getfd is not available"#)
      // A descriptor with a command that takes none is nobody's, in particular not the next one's.
      try await session.write(#"{"execute":"query-name","id":2}"#, descriptors: [file.rawValue])
      try await session.wait(for: #""id": 2}"#)
      try await other.write(#"{"execute":"add-fd","id":3}"#)
      try await other.wait(for: #"{"id": 3, "error": {"class": "GenericError", "desc": "No file descriptor supplied via SCM_RIGHTS"}}"#)
      for number in 4..<8 {
        try await other.write(#"{"execute":"add-fd","argum"#, descriptors: [file.rawValue])
        try await other.write(#"ents":{"fdset-id":\#(number)},"id":\#(number)}"#)
        try await other.wait(for: #""id": \#(number)}"#)
        try await other.write(#"{"execute":"remove-fd","arguments":{"fdset-id":\#(number)},"id":\#(number * 10)}"#)
        try await other.wait(for: #"{"return": {}, "id": \#(number * 10)}"#)
      }
      #expect(Self.lines(other).count == 9)
      #expect(RunningDaemon.descriptorCount(of: try daemon.daemon.qemu()) == before)
    }
  }

  @Test("query access: what changes the machine is refused, in its place", arguments: SessionKind.sharing) @EventLoopActor
  func queryAccess(kind: SessionKind) async throws {
    try await kind.withDaemon { daemon in
      let session = try await daemon.acquire("query")
      session.forget()
      try await session.write(
        #"{"execute":"qmp_capabilities"}{"execute":"query-name","id":1}{"execute":"stop","id":2}{"execute":"query-status","id":3}"#)
      try await session.wait(for: #""id": 3}"#)
      let lines = Self.lines(session)
      #expect(lines.count == 4)
      #expect(lines[2].contains("The command stop is not permitted on a session with query access"))
      #expect(lines[3].contains("running") || lines[3].contains("prelaunch"))
    }
  }

  @Test("List tells the mode; the shared monitor is there from the first session to the last") @EventLoopActor
  func listed() async throws {
    try await SessionKind.shared.withDaemon { daemon in
      let first = try await daemon.negotiated()
      let second = try await daemon.negotiated()
      let own = try await daemon.daemon.acquireQMP()
      let list = try await daemon.daemon.call("io.qmpvarlink.Sessions.List")
      let sessions = list.matches(of: /"mode":"(\w+)","monitor":"([^"]+)","chardev":"([^"]+)"/).map {
        ($0.output.1, $0.output.2, $0.output.3)
      }
      #expect(sessions.map(\.0) == ["shared", "shared", "own"])
      #expect(sessions[0].1 == sessions[1].1 && sessions[0].1 != sessions[2].1 && sessions[0].1 == sessions[0].2)
      // It is not to be taken away from under them.
      let refused = try await daemon.daemon.call("io.qmpvarlink.Monitors.Remove", #"{"id":"\#(sessions[0].1)"}"#)
      #expect(refused.contains("IsControlMonitor"))
      for peer in [first, second, own] { peer.close() }
      try await daemon.quiet()
      let objects = try await daemon.daemon.qmp(#"{"execute":"qom-list","arguments":{"path":"/objects"}}"#)
      #expect(!objects.contains("\"\(sessions[0].1)\""))
    }
  }

  @Test("an old QEMU: it says once how sessions are served, and what it cannot do is refused with the reason") @EventLoopActor
  func oldQEMU() async throws {
    try await SessionKind.sharedOnOld.withDaemon { daemon in
      let session = try await daemon.negotiated()
      let list = try await daemon.daemon.call("io.qmpvarlink.Sessions.List")
      #expect(list.contains(#""mode":"shared","sinceUSec""#))
      let connection = try daemon.daemon.connect()
      let own = try await connection.call("io.systemd.QemuMachineInstance.AcquireQMP", #"{"mode":"own"}"#, flags: #","upgrade":true"#)
      #expect(own.hasPrefix(#"{"error":"io.systemd.MachineInstance.NotSupported","parameters":{"reason":"this QEMU cannot add monitors"#))
      #expect(try await daemon.daemon.call("io.qmpvarlink.Monitors.List").contains("io.qmpvarlink.Monitors.Unsupported"))
      #expect(daemon.daemon.log.components(separatedBy: "sessions share the control monitor").count == 2)
      #expect(!daemon.daemon.log.contains("no spare monitor"))
      // As with any monitor, the one that asks QEMU to quit gets its reply, and everybody the end of file.
      let other = try await daemon.negotiated()
      try await session.write(#"{"execute":"quit","id":"bye"}"#)
      try await session.waitForEnd()
      try await other.waitForEnd()
      #expect(session.text.contains(#"{"return": {}, "id": "bye"}"#))
      #expect(other.text.contains("SHUTDOWN"))
    }
  }

  @Test("an old QEMU's reply that is too long ends the session that asked for it, and nothing else") @EventLoopActor
  func tooLongReply() async throws {
    try await SessionKind.sharedOnOld.withDaemon { daemon in
      let greedy = try await daemon.negotiated()
      let other = try await daemon.negotiated()
      try await greedy.write(
        #"{"execute":"human-monitor-command","arguments":{"command-line":"xp /6000000xb 0"}}"#)
      try await greedy.waitForEnd()
      try await other.write(#"{"execute":"query-name","id":1}"#)
      try await other.wait(for: #"{"return": {"name": "test"}, "id": 1}"#)
      var described = ""
      repeat { described = try await daemon.daemon.call("io.systemd.MachineInstance.Describe") } while described.contains("unresponsive")
      #expect(described.contains(#""status":"#))
      #expect(daemon.daemon.log.contains("QEMU's reply cannot be read: it is longer than"))
      #expect(kill(try daemon.daemon.qemu(), 0) == 0)
    }
  }

  @Test("the shared monitor deleted by a session: those on it end, and whoever comes next gets a new one") @EventLoopActor
  func deleted() async throws {
    try await SessionKind.shared.withDaemon(["--response-limit", "1"]) { daemon in
      let session = try await daemon.negotiated()
      let list = try await daemon.daemon.call("io.qmpvarlink.Sessions.List")
      let monitor = try #require(list.firstMatch(of: /"monitor":"([^"]+)"/)).output.1
      let direct = try Peer(.connected(to: daemon.direct))
      try await direct.write(#"{"execute":"qmp_capabilities"}{"execute":"object-del","arguments":{"id":"\#(monitor)"},"id":1}"#)
      try await direct.wait(for: #""id": 1}"#)
      try #require(direct.text.contains(#"{"return": {}, "id": 1}"#))
      // It is not told; what shows it is a command that gets no reply while QEMU answers elsewhere.
      try await session.write(#"{"execute":"query-name"}"#)
      try await session.waitForEnd()
      let next = try await daemon.negotiated()
      try await next.write(#"{"execute":"query-name","id":2}"#)
      try await next.wait(for: #"{"return": {"name": "test"}, "id": 2}"#)
      next.close()
      try await daemon.quiet()
    }
  }

  @Test("sessions on an old QEMU that stands still: one more is let in without asking it") @EventLoopActor
  func acquiredWhileStopped() async throws {
    try await SessionKind.sharedOnOld.withDaemon(["--response-limit", "1"]) { daemon in
      let first = try await daemon.negotiated()
      let qemu = try daemon.daemon.qemu()
      kill(qemu, SIGSTOP)
      let second = try await daemon.acquire()
      #expect(second.text.contains("QMP"))
      second.forget()
      try await second.write(#"{"execute":"qmp_capabilities"}{"execute":"query-name","id":1}"#)
      kill(qemu, SIGCONT)
      try await second.wait(for: #"{"return": {"name": "test"}, "id": 1}"#)
      first.close()
    }
  }

  @Test("an id with a NUL, which QEMU takes: what lists it says why it cannot be read, and all else goes on") @EventLoopActor
  func unreadableReply() async throws {
    try await SessionKind.own.withDaemon { daemon in
      let session = try await daemon.negotiated()
      let chardev = #""id":"a\u0000b""#
      try await session.write(#"{"execute":"chardev-add","arguments":{\#(chardev),"backend":{"type":"null","data":{}}},"id":1}"#)
      try await session.wait(for: #""id": 1}"#)
      try #require(!session.text.contains("error"))
      let list = try await daemon.daemon.call("io.qmpvarlink.Monitors.List")
      #expect(list.contains("EBADMSG") && list.contains("QEMU's reply cannot be read"))
      #expect(try await daemon.daemon.call("io.systemd.MachineInstance.Describe").contains(#""status":"#))
      try await session.write(#"{"execute":"chardev-remove","arguments":{\#(chardev)},"id":2}"#)
      try await session.wait(for: #"{"return": {}, "id": 2}"#)
      #expect(try await daemon.daemon.call("io.qmpvarlink.Monitors.List").contains(#""monitors":"#))
    }
  }

  /// Runs `body` beside a QEMU 7.2 that nobody of ours has started, with the folder of its sockets.
  @EventLoopActor
  private static func withOldQEMU(
    _ options: @escaping (FilePath) -> [String], _ body: @escaping @EventLoopActor (FilePath) async throws -> Void
  ) async throws {
    let program = try await OldQEMU.program()
    try await withTemporaryDirectory { folder in
      let pidfile = folder.appending("pid")
      let started = try await command(
        program,
        ["-machine", "none", "-nodefaults", "-display", "none", "-name", "test", "-daemonize", "-pidfile", pidfile.string] + options(folder)
      )
      try #require(started.status == 0, "\(started.error)")
      let process = try #require(Int32(contents(of: pidfile).trimmingCharacters(in: .whitespacesAndNewlines)))
      defer { kill(process, SIGKILL) }
      try await body(folder)
    }
  }

  @Test("a QEMU whose monitors are pretty: sessions get one line each, and each its own", arguments: [true, false]) @EventLoopActor
  func pretty(hasSpare: Bool) async throws {
    try await Self.withOldQEMU({ folder in
      (["a"] + (hasSpare ? ["b"] : [])).flatMap { ["-qmp-pretty", "unix:\(folder.appending($0)),server=on,wait=off"] }
    }) { folder in
      _ = try await withDaemon(["attach", "--machine", "test", "--qmp", "unix:\(folder.appending("a"))"]) { daemon in
        let sharing = SharingDaemon(daemon: daemon, kind: .sharedOnOld, direct: folder.appending("a"))
        let first = try await sharing.negotiated()
        let second = try await sharing.negotiated()
        try await first.write(#"{"execute":"stop","id":1}{"execute":"query-status","id":2}"#)
        try await second.write(#"{"execute":"query-name","id":3}"#)
        try await first.wait(for: #""id": 2}"#)
        try await second.wait(for: #"{"return": {"name": "test"}, "id": 3}"# + "\r\n")
        let lines = Self.lines(first)
        #expect(lines.allSatisfy { $0.hasPrefix("{\"") && $0.hasSuffix("}") }, "\(first.text)")
        #expect(Self.ids(first) == [1, 2])
        #expect(Self.ids(second) == [3])
        #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains(#""status":"#))
      }
    }
  }

  @Test("a QMP socket is shared only if it is this QEMU's; the next one is tried") @EventLoopActor
  func strangersSocket() async throws {
    let program = try await OldQEMU.program()
    try await Self.withOldQEMU({ folder in
      ["a", "b", "c"].flatMap { ["-qmp", "unix:\(folder.appending($0)),server=on,wait=off"] }
        + [
          "-qmp", "unix:relative,server=on,wait=off", "-qmp",
          "unix:abstract-\(folder.lastComponent?.string ?? ""),abstract=on,server=on,wait=off",
        ]
    }) { folder in
      // Somebody else's QEMU now listens where b was.
      let other = folder.appending("other")
      let started = try await command(
        program,
        ["-machine", "none", "-nodefaults", "-display", "none", "-name", "wrong", "-daemonize", "-pidfile", other.string]
          + ["-qmp", "unix:\(folder.appending("b")),server=on,wait=off"])
      try #require(started.status == 0, "\(started.error)")
      let process = try #require(Int32(contents(of: other).trimmingCharacters(in: .whitespacesAndNewlines)))
      defer { kill(process, SIGKILL) }
      _ = try await withDaemon(["attach", "--machine", "test", "--qmp", "unix:\(folder.appending("a"))"]) { daemon in
        let sharing = SharingDaemon(daemon: daemon, kind: .sharedOnOld, direct: folder.appending("c"))
        let session = try await sharing.negotiated()
        try await session.write(#"{"execute":"query-name","id":1}"#)
        try await session.wait(for: #""id": 1}"#)
        #expect(session.text == #"{"return": {"name": "test"}, "id": 1}"# + "\r\n")
        session.forget()
        try await session.write(#"{"execute":"query-chardev"}"#)
        try await session.wait("the reply") { $0.received.last == UInt8(ascii: "\n") }
        #expect(session.text.contains("disconnected:unix:\(folder.appending("b"))"))
        #expect(!session.text.contains("disconnected:unix:\(folder.appending("c"))"))
        #expect(daemon.log.contains("nothing to share at \(folder.appending("b")): another process listens there"))
        #expect(!daemon.log.contains("relative") && !daemon.log.contains("abstract"))
      }
    }
  }

  @Test("attached to an old QEMU with a second QMP socket: sessions share that, and leave the control monitor alone") @EventLoopActor
  func spareSocket() async throws {
    try await Self.withOldQEMU({ folder in ["a", "b"].flatMap { ["-qmp", "unix:\(folder.appending($0)),server=on,wait=off"] } }) {
      folder in
      let sockets = ["a", "b"].map { folder.appending($0) }
      _ = try await withDaemon(["attach", "--machine", "test", "--qmp", "unix:\(sockets[0])"]) { daemon in
        let sharing = SharingDaemon(daemon: daemon, kind: .sharedOnOld, direct: sockets[1])
        let session = try await sharing.negotiated()
        try await session.write(#"{"execute":"query-chardev"}"#)
        try await session.wait("the reply") { $0.received.last == UInt8(ascii: "\n") }
        #expect(!session.text.contains("disconnected"), "both have a client")
        #expect(daemon.log.contains("sessions share the one at \(sockets[1])"))
        session.close()
        try await sharing.quiet()
        // It is free again.
        let direct = try Peer(.connected(to: sockets[1]))
        try await direct.wait(for: "QMP")
        // Taken by somebody, it is nothing to wait for.
        let fallback = try await sharing.negotiated()
        try await fallback.write(#"{"execute":"query-name","id":1}"#)
        try await fallback.wait(for: #"{"return": {"name": "test"}, "id": 1}"#)
      }
    }
  }
}
