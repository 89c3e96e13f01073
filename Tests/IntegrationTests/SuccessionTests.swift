import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("another run of the daemon takes over", .onEventLoop)
struct SuccessionTests {
  private static let arguments = bareMachine
  private static let describe = "io.systemd.MachineInstance.Describe"

  /// Has the next run of the program take over, and waits until it serves.
  @EventLoopActor
  private func succeed(_ daemon: RunningDaemon) async throws {
    func count(_ words: String) -> Int { daemon.log.count(of: words) }
    let (before, failures) = (count("took over from a run before"), count("this daemon goes on"))
    daemon.signal(SIGUSR2)
    // Who calls waits at the socket, which is open all the time; the first may have met the run before.
    repeat {
      _ = try? await daemon.call(Self.describe)
    } while count("took over from a run before") == before && count("this daemon goes on") == failures
    #expect(count("this daemon goes on") == failures, "\(daemon.log)")
  }

  /// A session that has been negotiated.
  @EventLoopActor
  private func session(_ daemon: RunningDaemon, _ parameters: String = "{}") async throws -> Peer {
    let connection = try daemon.connect()
    let reply = try await connection.call("io.systemd.QemuMachineInstance.AcquireQMP", parameters, flags: #","upgrade":true"#)
    #expect(!reply.contains("error"), "\(reply)")
    try await connection.peer.write(#"{"execute":"qmp_capabilities"}"#)
    try await connection.peer.wait(for: #"{"return": {}}"#)
    return connection.peer
  }

  @Test("sessions go on from where they are: idle, parked, in the middle of a command, not negotiated, with query access") @EventLoopActor
  func sessions() async throws {
    let (_, status) = try await withDaemon(["--park-after=0.2"].inFront(of: Self.arguments)) { daemon in
      let (process, qemu) = (daemon.process, try daemon.qemu())
      let parked = try await session(daemon)
      let query = try await session(daemon, #"{"access":"query"}"#)
      repeat {} while try await !daemon.call("io.qmpvarlink.Sessions.List").contains(#""state":"parked""#)
      let idle = try await session(daemon)
      let fresh = try await daemon.acquireQMP()
      try await fresh.wait(for: "\r\n")
      let amid = try await session(daemon)
      for round in 0..<5 {
        try await amid.write(#"  {"execute": "query-na"#)
        try await succeed(daemon)
        #expect(kill(process, 0) == 0, "the process is the same")
        #expect(try daemon.qemu() == qemu, "and so is QEMU")
        try await amid.write(#"me", "id": "a\#(round)"}"#)
        try await amid.wait(for: #""id": "a\#(round)"}"#)
        try await idle.write(#"{"execute":"query-status","id":\#(round)}"#)
        try await idle.wait(for: #""id": \#(round)}"#)
        try await query.write(#"{"execute":"stop","id":"no\#(round)"}{"execute":"query-status","id":"yes\#(round)"}"#)
        try await query.wait(for: #""id": "yes\#(round)"}"#)
        #expect(query.text.contains(#"{"id":"no\#(round)","error""#))
        // Every session has each event once, one that has just been parked or woken too.
        try await idle.write(#"{"execute":"stop"}{"execute":"cont"}"#)
        for session in [parked, query, idle, amid] {
          try await session.wait("the events of round \(round)") { $0.text.count(of: #""RESUME"}"#) == round + 1 }
          #expect(session.text.count(of: #""STOP"}"#) == round + 1)
        }
      }
      #expect(fresh.text.count(of: "\r\n") == 1, "who has not negotiated has the greeting and nothing else")
      try await fresh.write(#"{"execute":"query-name"}{"execute":"qmp_capabilities"}"#)
      try await fresh.wait(for: #"{"return": {}}"#)
      #expect(fresh.text.contains("Expecting capabilities negotiation"))
      try await parked.write(#"{"execute":"query-name","id":"awake"}"#)
      try await parked.wait(for: #""id": "awake"}"#)
      for session in [parked, query, idle, fresh, amid] {
        session.endWriting()
        try await session.waitForEnd()
      }
      try await StormTests.quiet(daemon)
    }
    #expect(status == 0)
  }

  @Test("clients that write all the time, and one that does not read, lose nothing and get nothing twice") @EventLoopActor
  func underLoad() async throws {
    let (_, status) = try await withDaemon(["--park-after=0.1"].inFront(of: Self.arguments)) { daemon in
      let qemu = try daemon.qemu()
      let slow = try await session(daemon)
      slow.reads = false
      for _ in 0..<3 { try await slow.write(#"{"execute":"query-qmp-schema"}"#) }
      try await slow.write(#"{"execute":"query-name","id":"last"}"#)
      let clients = try await (0..<6).mapAsync { _ in try await session(daemon) }
      let isOver = Flag()
      let sent = clients.map { client in
        let count = Promise<Int>()
        startTask {
          var number = 0
          while !isOver.isSet {
            for _ in 0..<10 {
              try? await client.write(#"{"execute": "query-name", "id": \#(number)}"#)
              number += 1
            }
            // No more than a few under way, and now and then long enough without to be parked.
            try? await client.wait(for: #""id": \#(number - 1)}"#)
            if number.isMultiple(of: 100) { _ = await Promise<Void>().value(within: .milliseconds(300)) }
          }
          count.fulfil(number)
        }
        return count
      }
      for _ in 0..<8 { try await succeed(daemon) }
      isOver.isSet = true
      for (client, sent) in zip(clients, sent) {
        let expected = (0..<(try await sent.soon())).map { #"{"return": {"name": "test"}, "id": \#($0)}"# }
        let replies = client.text.split(whereSeparator: \.isNewline).filter { $0.hasPrefix(#"{"return": {"name""#) }.map { String($0) }
        #expect(replies == expected)
      }
      slow.reads = true
      try await slow.wait(for: #""id": "last"}"#)
      #expect(slow.text.count(of: #"{"return": [{"#) == 3)
      #expect(try daemon.qemu() == qemu)
      for client in clients + [slow] { client.close() }
      try await StormTests.quiet(daemon)
    }
    #expect(status == 0)
  }

  @Test("added monitors stay, with their clients or waiting for them; drives and subscribers' machine too") @EventLoopActor
  func monitorsAndDrives() async throws {
    let (_, status) = try await withDaemon(Self.arguments) { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      for id in ["used", "waiting"] { #expect(try await !monitors.listen(id).contains("error")) }
      try await monitors.makeChardev("null0")
      _ = try await monitors.add("foreign", chardev: "null0")
      let client = try await monitors.connect("used")
      try await client.write(#"{"execute":"qmp_capabilities"}{"execute":"query-name","id":1}"#)
      try await client.wait(for: #""id": 1}"#)
      let before = try await monitors.call("List")
      try await succeed(daemon)
      try await client.write(#"{"execute":"query-name","id":2}"#)
      try await client.wait(for: #""id": 2}"#)
      let other = try await monitors.connect("waiting")
      try await other.wait(for: "QMP")
      client.close()
      // The monitor of who went is made anew, for the next.
      let next = try await monitors.connect("used")
      try await next.wait(for: "QMP")
      for id in ["used", "waiting", "foreign"] {
        #expect(before.contains(#"{"id":"\#(id)""#))
        #expect(try await !monitors.remove(id).contains("error"))
      }
      try await next.waitForEnd()
      #expect(try await !monitors.call("List").contains("foreign"))
      #expect(access(monitors.path("waiting").string, F_OK) != 0, "a monitor's socket goes with it")
    }
    #expect(status == 0)
  }

  @Test("a socket that was passed is passed on, and stays when the last run ends") @EventLoopActor
  func passedSocket() async throws {
    try await withTemporaryDirectory { folder in
      let socket = folder.appending("control")
      // What systemd-socket-activate does not pass on by itself.
      let environment = ["NOTIFY_SOCKET"] + (getenv("LD_LIBRARY_PATH") == nil ? [] : ["LD_LIBRARY_PATH"])
      let launcher = ["systemd-socket-activate", "--now", "--fdname=varlink", "-l", socket.string] + environment.flatMap { ["-E", $0] }
      let (_, status) = try await withDaemon(Self.arguments, directory: folder, launcher: launcher) { daemon in
        let session = try await session(daemon)
        try await succeed(daemon)
        try await session.write(#"{"execute":"query-name","id":1}"#)
        try await session.wait(for: #""id": 1}"#)
      }
      #expect(status == 0)
      #expect(access(socket.string, F_OK) == 0)
    }
  }

  @Test("a QEMU that does not answer: this run goes on, says why, and its sessions have lost nothing") @EventLoopActor
  func stopped() async throws {
    let (_, status) = try await withDaemon(["--park-after=0.2"].inFront(of: Self.arguments)) { daemon in
      let parked = try await [session(daemon), session(daemon), session(daemon, #"{"mode":"shared"}"#)]
      repeat {} while try await daemon.call("io.qmpvarlink.Sessions.List").count(of: #""state":"parked""#) < 2
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"}{"execute":"qmp_capabilities"}"#)
      try await session.wait(for: #"{"return": {}}"#)
      let qemu = try daemon.qemu()
      kill(qemu, SIGSTOP)
      daemon.signal(SIGUSR2)
      repeat {} while !daemon.log.contains("another run of this program is to take over")
      // One says its last word.
      for session in parked { try await session.write(#"{"execute":"query-name","id":1}"#) }
      parked[1].endWriting()
      repeat { _ = await Promise<Void>().value(within: .milliseconds(100)) } while !daemon.log.contains("this daemon goes on")
      #expect(daemon.log.contains("another cannot take over: QEMU does not answer"))
      kill(qemu, SIGCONT)
      try await session.write(#"{"execute":"query-name","id":1}"#)
      for session in parked + [session] { try await session.wait(for: #""id": 1}"#) }
      try await parked[1].waitForEnd()
      // It may be that the daemon had given QEMU up by then.
      repeat {} while try await daemon.call(Self.describe).contains("unresponsive")
      #expect(try await daemon.qmp(#"{"execute":"query-name"}"#).contains("test"), "new sessions begin again")
      parked[2].close()
      parked[0].close()
      session.close()
      try await StormTests.quiet(daemon)
      try await succeed(daemon)
    }
    #expect(status == 0)
  }

  @Test("what the next run would not start with is told, and nothing ends; mended, it counts from then on, the socket's mode too")
  @EventLoopActor
  func newPolicy() async throws {
    try await withTemporaryDirectory { folder in
      let (policy, options) = (folder.appending("policy"), folder.appending("options"))
      func write(_ text: String, to file: FilePath) throws { try Data(text.utf8).write(to: URL(filePath: file.string)) }
      try write("", to: policy)
      try write("# none\n", to: options)
      _ = try await command("chmod", ["644", policy.string])
      let arguments = ["--policy", policy.string, "--config", options.string].inFront(of: Self.arguments)
      let (_, status) = try await withDaemon(arguments) { daemon in
        let session = try await session(daemon)
        let qemu = try daemon.qemu()
        #expect(mode(of: daemon.socket) == 0o600)
        for (file, wrong, right) in [(policy, "observe nonsense", "observe user:8"), (options, "--no-such-option=1", "# none\n")] {
          let failures = daemon.log.count(of: "another cannot take over: it would not start: ")
          try write(wrong, to: file)
          daemon.signal(SIGUSR2)
          repeat { _ = try await daemon.call(Self.describe) } while daemon.log.count(of: "it would not start: ") == failures
          try write(right, to: file)
        }
        #expect(daemon.log.contains("nonsense") && daemon.log.contains("--no-such-option"), "\(daemon.log)")
        #expect(mode(of: daemon.socket) == 0o600)
        try await succeed(daemon)
        #expect(mode(of: daemon.socket) == 0o666)
        #expect(try daemon.qemu() == qemu)
        try await session.write(#"{"execute":"query-name","id":1}"#)
        try await session.wait(for: #""id": 1}"#)
      }
      #expect(status == 0)
    }
  }

  @Test("callers that never pause do not keep the next run from taking over") @EventLoopActor
  func busyCallers() async throws {
    let (_, status) = try await withDaemon(Self.arguments) { daemon in
      let isOver = Flag()
      let callers = (0..<8).map { _ in
        startTask {
          while !isOver.isSet {
            guard let connection = try? daemon.connect() else { continue }
            while !isOver.isSet, let reply = try? await connection.call(Self.describe), reply.contains("running") {}
          }
        }
      }
      for _ in 0..<3 { try await succeed(daemon) }
      isOver.isSet = true
      for caller in callers { await caller.value }
    }
    #expect(status == 0)
  }

  @Test("with --audit, a session whose next command could not be told does not go on; others do, and are logged") @EventLoopActor
  func audited() async throws {
    let (_, status) = try await withDaemon(["--audit"].inFront(of: Self.arguments)) { daemon in
      let (known, unknown) = try await (session(daemon), session(daemon))
      try await unknown.write("stray\n")
      try await unknown.wait(for: "stray")
      try await succeed(daemon)
      try await unknown.waitForEnd()
      try await known.write(#"{"execute":"query-name","id":1}"#)
      try await known.wait(for: #""id": 1}"#)
      #expect(daemon.log.contains("a session is lost: what it is in the middle of is not known"), "\(daemon.log)")
      #expect(daemon.log.contains("command=\"query-name\"") || daemon.log.contains("command=query-name"), "\(daemon.log)")
      known.close()
      try await StormTests.quiet(daemon)
    }
    #expect(status == 0)
  }

  private func mode(of path: FilePath) -> UInt32 {
    var status = stat()
    return path.withPlatformString { stat($0, &status) } == 0 ? status.st_mode & 0o777 : 0
  }

  @Test("asked to stop while it waits for QEMU, the daemon stops") @EventLoopActor
  func stopsMeanwhile() async throws {
    let (_, status) = try await withDaemon(["--stop-timeout=0"].inFront(of: Self.arguments)) { daemon in
      kill(try daemon.qemu(), SIGSTOP)
      daemon.signal(SIGUSR2)
      repeat {} while !daemon.log.contains("another run of this program is to take over")
    }
    #expect(status == 128 + SIGKILL, "QEMU was killed, for it does not quit")
  }

  @Test("what cannot be gone on with is told") @EventLoopActor
  func unreadable() async throws {
    for (text, why) in [
      ("{}", "it is in a form that this version"), ("nonsense", "invalid JSON"), (#"{"format":1}"#, "of another machine than 'test'"),
      (#"{"format":1,"machine":{"name":"test"}}"#, "a machine that cannot be read"),
    ] {
      try await withTemporaryDirectory { folder in
        let file = folder.appending("state")
        try Data(text.utf8).write(to: URL(filePath: file.string))
        let daemon = productsDirectory.appending("qmp-varlinkd").string
        let result = try await command(
          "sh", ["-c", "exec 9<$0; exec \"$@\"", file.string, daemon, "run", "--machine=test", "--runtime-directory=\(folder)"],
          environment: ["QMP_VARLINK_HANDOVER": "9"])
        #expect(result.status == 70 && result.error.contains(why), "\(result.status): \(result.error)")
      }
    }
  }

  @Test("--resume: after a kill the next daemon finds the machine, and ends it when it is asked to") @EventLoopActor
  func killed() async throws {
    try await withTemporaryDirectory { folder in
      let arguments = ["--resume", "--stop-timeout=0"].inFront(of: Self.arguments)
      var qemu: Int32 = 0
      for round in 0..<3 {
        let known = qemu
        let (found, status) = try await withDaemon(arguments, directory: folder) { daemon in
          let session = try await session(daemon)
          let reply = try await daemon.call(Self.describe)
          #expect(reply.contains(#""status":"running""#), "\(reply)")
          let found = round == 0 ? try daemon.qemu() : known
          #expect(daemon.log.contains("attached to QEMU") == (round > 0))
          if round < 2 {
            daemon.signal(SIGKILL)
            try await session.waitForEnd()
          }
          return found
        }
        qemu = found
        #expect(status == (round < 2 ? 128 + SIGKILL : 0))
        // One that has ended and was not reaped has no command line.
        #expect(contents(of: FilePath("/proc/\(qemu)/cmdline")).isEmpty == (round == 2), "QEMU lives as long as nobody ends the machine")
      }
    }
  }

  @Test("--resume: a machine that does not answer at first is waited for, and ended all the same") @EventLoopActor
  func foundLate() async throws {
    try await withTemporaryDirectory { folder in
      let arguments = ["--resume", "--stop-timeout=0"].inFront(of: Self.arguments)
      let (qemu, _) = try await withDaemon(arguments, directory: folder) { daemon in
        let qemu = try daemon.qemu()
        daemon.signal(SIGKILL)
        return qemu
      }
      kill(qemu, SIGSTOP)
      let log = folder.appending("log")
      let program = productsDirectory.appending("qmp-varlinkd").string
      let words = ["--register=no", "--polkit=no", "--runtime-directory", folder.string].inFront(of: arguments)
      let script = """
        "$@" 2>\(log) & until grep -qE 'waiting for the machine|serving' \(log); do :; done
        kill $!; kill -CONT \(qemu); wait $!
        """
      let result = try await command("sh", ["-c", script, "sh", program] + words)
      #expect(result.status == 0 && contents(of: log).contains("waiting for the machine"), "\(contents(of: log))")
      #expect(contents(of: FilePath("/proc/\(qemu)/cmdline")).isEmpty, "QEMU has ended with the daemon")
    }
  }
}

/// A mark that one task sets and others look at.
@EventLoopActor
private final class Flag { var isSet = false }

extension String {
  /// How often a text occurs in it.
  fileprivate func count(of text: String) -> Int { components(separatedBy: text).count - 1 }
}

extension [String] {
  /// Options, in front of those that stand behind the command's name.
  fileprivate func inFront(of command: [String]) -> [String] { command.prefix(1) + self + command.dropFirst() }
}

extension Sequence {
  @EventLoopActor
  fileprivate func mapAsync<Result>(_ transform: (Element) async throws -> Result) async rethrows -> [Result] {
    var results: [Result] = []
    for element in self { results.append(try await transform(element)) }
    return results
  }
}
