import ArgumentParser
import Glibc
import Simulator
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@testable import qmp_simulator

@Suite("the program qmp-simulator", .onEventLoop) struct ProgramTests {
  @Test("everything can be said")
  func everything() throws {
    let command = try QMPSimulator.parse([
      "--listen", "/q", "--fd", "3", "--monitor", "a=/b=c", "--monitor", "x=y", "--hmp", "h", "--pretty", "--dialect", "monitor-add",
      "--fault",
      "drop@3", "--fault", "random@0.5:drop", "--seed", "7", "--script", "s", "--version-of", "7.2.0", "--name", "n", "--log",
    ])
    #expect(command.listen == "/q" && command.fd == 3 && command.monitor.map(\.id) == ["a", "x"] && command.monitor[0].path == "/b=c")
    #expect(command.hmp == ["h"] && command.pretty && command.dialect == .monitorAdd && command.fault.count == 2 && command.seed == 7)
    #expect(command.script == "s" && command.versionOf == .init(major: 7, minor: 2, micro: 0) && command.name == "n" && command.log)
  }

  @Test(
    "what makes no sense is refused with the reason",
    arguments: [
      ([], "There must be a monitor"), (["--hmp", "h"], "There must be a monitor"), (["--listen", "a", "--monitor", "x"], "x"),
      (["--listen", "a", "--monitor", "compat_monitor0=b"], "two monitors 'compat_monitor0'"), (["--fd=-1"], "--fd must not be negative"),
      (["--listen", "a", "--fault", "drop@0"], "'0' is not the number of a command"),
      (["--listen", "a", "--fault", "fall@1"], "'fall' is not one of"),
      (["--listen", "a", "--fault", "random@0", "--fault", "random@1"], "one 'random' only"),
      (["--listen", "a", "--dialect", "new"], "new"), (["--listen", "a", "--version-of", "11.1"], "11.1"),
    ] as [([String], String)])
  func refused(arguments: [String], reason: String) {
    do {
      _ = try QMPSimulator.parse(arguments)
      Issue.record("accepted")
    } catch {
      #expect(QMPSimulator.fullMessage(for: error).contains(reason), "\(QMPSimulator.fullMessage(for: error))")
      #expect(QMPSimulator.exitCode(for: error) == .validationFailure)
    }
  }

  @Test("serves until a client says quit, and says nothing itself") @EventLoopActor
  func quit() async throws {
    let ended = try await withSimulator(["--name", "web", "--version-of", "10.0.1"]) { simulator in
      let client = try simulator.connect()
      try await client.wait(for: #""micro": 1, "minor": 0, "major": 10"#)
      try await client.write(#"{"execute":"qmp_capabilities"}{"execute":"query-name"}{"execute":"quit"}"#)
      try await client.waitForEnd()
      #expect(client.text.contains(#"{"return": {"name": "web"}}"#) && client.text.hasSuffix("{\"return\": {}}\r\n"))
      return simulator.path
    }
    #expect(ended.status == 0 && ended.log == "" && !FilePath.exists(ended.result))
  }

  @Test("a signal ends it: SHUTDOWN, no socket left, status 0", arguments: [SIGTERM, SIGINT, SIGHUP]) @EventLoopActor
  func signal(_ signal: CInt) async throws {
    let ended = try await withSimulator { simulator in
      let client = try simulator.connect()
      try await client.write(#"{"execute":"qmp_capabilities"}"#)
      try await client.wait(for: #"{"return": {}}"#)
      simulator.signal(signal)
      try await client.waitForEnd()
      #expect(client.text.contains(#""event": "SHUTDOWN", "data": {"guest": false, "reason": "host-signal"}"#))
      return !FilePath.exists(simulator.path)
    }
    #expect(ended.status == 0 && ended.log == "" && ended.result)
  }

  @Test("a fault that kills it: the socket stays, status 134") @EventLoopActor
  func dies() async throws {
    let ended = try await withSimulator(["--fault", "die@1"]) { simulator in
      let client = try simulator.connect()
      try await client.write(#"{"execute":"qmp_capabilities"}"#)
      try await client.waitForEnd()
      return FilePath.exists(simulator.path)
    }
    #expect(ended.status == 134 && ended.result)
  }

  @Test("with --log, each command is told; several monitors, a script and faults work together") @EventLoopActor
  func log() async throws {
    let folder = try TemporaryFolder()
    let script = try folder.file("script", Array(#"{"execute": "query-block", "return": [1]}"#.utf8))
    let path = folder.path.appending("other")
    let ended = try await withSimulator(["--log", "--script", script.string, "--monitor", "other=\(path)", "--fault", "fail@other/2:no"]) {
      simulator in
      let client = try simulator.connect()
      try await client.write("{\"execute\":\"qmp_capabilities\"}{\"execute\": \n'query-block'}")
      try await client.wait(for: #"{"return": [1]}"#)
      let other = try Peer(.connected(to: path))
      try await other.write(#"{"execute":"qmp_capabilities"}{"execute":"query-block"}"#)
      try await other.wait(for: #"{"class": "GenericError", "desc": "no"}"#)
    }
    #expect(
      ended.log == """
        1 compat_monitor0 {"execute":"qmp_capabilities"}
        2 compat_monitor0 {"execute": \n'query-block'}
        3 other {"execute":"qmp_capabilities"}
        4 other {"execute":"query-block"}

        """)
    #expect(ended.status == 0)
  }

  @Test("what cannot be had is told in one line, with status 1") @EventLoopActor
  func failures() async throws {
    let folder = try TemporaryFolder()
    let script = try folder.file("script", Array("\nnope\n".utf8)).string
    let socket = folder.path.appending("qmp").string
    for (arguments, reason) in [
      (["--listen", "/no/such/folder/qmp"], "Failed to bind socket to /no/such/folder/qmp: No such file or directory"),
      (["--listen", socket, "--script", "/no/such/script"], "cannot read /no/such/script"),
      (["--listen", socket, "--script", script], "\(script): line 2: 1:1: JSON parse error, invalid keyword 'nope'"),
      (["--fd", "999"], "--fd 999: Bad file descriptor"), (["--fd", "0"], "--fd 0: Socket operation on non-socket"),
    ] {
      let result = try await command(productsDirectory.appending("qmp-simulator").string, arguments)
      #expect(result.status == 1 && result.output == "" && result.error == "qmp-simulator: \(reason)\n")
    }
  }
}
