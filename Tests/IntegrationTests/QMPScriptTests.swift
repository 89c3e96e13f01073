import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("qmpctl qmp in scripts", .onEventLoop)
struct QMPScriptTests {
  @EventLoopActor
  private static func qmpctl(_ daemon: RunningDaemon, _ arguments: [String], input: String = "") async throws -> CommandResult {
    try await command(qmpctlProgram, ["qmp", daemon.directory.string] + arguments, input: input)
  }

  @Test("one command, its reply on one line, and its status") @EventLoopActor
  func oneCommand() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      for (words, output, error, status) in [
        (["query-status"], #"{"return": {"status": "running", "running": true}}"#, "", 0),
        (
          ["object-add", "qom-type=iothread", "id=a b", "poll-max-ns=0x10"],
          #"{"error": {"class": "GenericError", "desc": "Parameter 'id' expects an identifier"}}"#,
          "qmpctl: object-add: GenericError: Parameter 'id' expects an identifier", 1
        ),
        (["qom-get", "path=/", "property=type"], #"{"return": "container"}"#, "", 0),
        (["qom-get", #"{"path": "/", "property": "type"}"#], #"{"return": "container"}"#, "", 0),
        ([#"{"execute": "query-name", "id": [1, "x"]}"#], #"{"return": {"name": "test"}, "id": [1, "x"]}"#, "", 0),
        (["qom-get", "path=/"], "", "qmpctl: qom-get needs 'property'", 1),
        (
          ["query-nonsense"], #"{"error": {"class": "CommandNotFound", "desc": "The command query-nonsense has not been found"}}"#,
          "qmpctl: query-nonsense: CommandNotFound: The command query-nonsense has not been found", 1
        ),
      ] as [([String], String, String, Int32)] {
        let result = try await Self.qmpctl(daemon, ["--"] + words)
        let lines = { (text: String) in text.isEmpty ? "" : text + "\n" }
        #expect(result.error.hasPrefix(lines(error)) && result.error.isEmpty == error.isEmpty, "\(words): \(result.error)")
        #expect(result.output == lines(output), "\(words)")
        #expect(result.status == status, "\(words)")
      }
      let hmp = try await Self.qmpctl(daemon, ["--hmp", "--", "info", "status"])
      #expect(hmp.output == "VM status: running\n" && hmp.status == 0)
    }
  }

  @Test("a script: a reply a line, the first error ends it, events on request") @EventLoopActor
  func script() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let script = "# a comment\nquery-name\n\n  stop  \n{\"execute\": \"query-status\", \"id\": 7}\ncont\nnonsense\nquery-name"
      let replies = [
        #"{"return": {"name": "test"}}"#, #"{"return": {}}"#, #"{"return": {"status": "paused", "running": false}, "id": 7}"#,
        #"{"return": {}}"#,
        #"{"error": {"class": "CommandNotFound", "desc": "The command nonsense has not been found"}}"#,
      ]
      let plain = try await Self.qmpctl(daemon, [], input: script)
      #expect(plain.output == replies.map { $0 + "\n" }.joined())
      #expect(plain.status == 1 && plain.error.hasPrefix("qmpctl: nonsense: CommandNotFound: "))
      let whole = try await Self.qmpctl(daemon, ["--keep-going"], input: script)
      #expect(whole.output == (replies + [replies[0]]).map { $0 + "\n" }.joined())
      #expect(whole.status == 1)
      let events = try await Self.qmpctl(daemon, ["--events"], input: script)
      let lines = events.output.split(separator: "\n")
      #expect(lines.filter { $0.hasPrefix(#"{"timestamp": "#) }.map { $0.hasSuffix(#""event": "STOP"}"#) } == [true, false])
      #expect(lines.filter { !$0.hasPrefix(#"{"timestamp": "#) } == replies.map { $0[...] })

      // From a file, which cannot be waited for.
      let file = daemon.directory.appending("script")
      let shell =
        "printf 'query-name\\nquery-status\\n' >'\(file)'; '\(qmpctlProgram)' qmp '\(daemon.directory)' <'\(file)'"
      let result = try await command("sh", ["-c", shell])
      #expect(result.status == 0 && result.output.split(separator: "\n").count == 2, "\(result)")
      #expect(try await Self.qmpctl(daemon, []).status == 0, "an empty script")
    }
  }

  @Test("a machine that there is not, and one that goes away while it is spoken with") @EventLoopActor
  func noMachine() async throws {
    let missing = try await command(qmpctlProgram, ["qmp", "/nonexistent/vm", "--", "query-name"])
    #expect(missing.status == 69 && missing.output.isEmpty && missing.error.contains("No such file"), "\(missing)")
    _ = try await withDaemon(bareMachine) { daemon in
      // The pipe stays open: it is QEMU's end that ends it.
      let shell =
        "(printf 'query-name\\nquit\\n'; exec sleep 100000) | { '\(qmpctlProgram)' qmp '\(daemon.directory)'; echo $?; kill 0; }"
      let result = try await command("setsid", ["--wait", "sh", "-c", shell])
      #expect(result.output == "{\"return\": {\"name\": \"test\"}}\n{\"return\": {}}\n69\n", "\(result)")
      #expect(result.error.contains("the session with machine"), "\(result.error)")
    }
  }
}
