import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@Suite("qmpctl on a real QEMU", .onEventLoop)
struct QMPControlTests {
  @Test("machines are listed and described, by name and by path") @EventLoopActor
  func listAndStatus() async throws {
    try await withMachine { folder, daemon in
      let session = try await daemon.acquireQMP()
      let list = try JSONVariant(parsing: try await qmpctl(["list", "--json"], in: folder).output)
      try #require(list.elements?.count == 1)
      let web = try #require(list.elements?.first)
      #expect(web["name"]?.string == "web" && web["socket"]?.string == daemon.socket.string && web["status"]?.string == "running")
      #expect(web["running"]?.boolean == true && web["pid"]?.integer == Int64(daemon.process) && web["sessions"]?.integer == 1)
      #expect(web["error"] == nil && (web["sinceUSec"]?.integer ?? 0) > 1_700_000_000_000_000)

      let table = try await qmpctl(["list"], in: folder)
      let lines = table.output.split(separator: "\n")
      #expect(table.status == 0 && lines.count == 3 && lines[0].hasPrefix("NAME STATE") && lines[2] == "1 machine listed.")
      #expect(lines[1].hasPrefix("web  running        1 ") && lines[1].hasSuffix(daemon.socket.string), "\(table.output)")
      #expect(try await qmpctl(["list", "--no-legend"], in: folder).output.split(separator: "\n").count == 1)

      for name in ["web", daemon.socket.string, daemon.directory.string] {
        let status = try await qmpctl(["status", name], in: folder)
        #expect(status.status == 0 && status.output.contains("State: running\n"), "\(status)")
        #expect(status.output.contains("qmp-varlinkd 0.1.0, process \(daemon.process)") && status.output.contains("Sessions: 1\n"))
      }
      session.close()
    }
  }

  @Test("what cannot be reached is told, with what to do about it, and has an exit status of its own") @EventLoopActor
  func unreachable() async throws {
    try await withMachine { folder, daemon in
      let unknown = try await qmpctl(["pause", "wbe"], in: folder)
      #expect(unknown.status == 69 && unknown.error == "qmpctl: there is no machine 'wbe'\nThere is: web\n" && unknown.output == "")
      #expect(try await qmpctl(["pause", "/nowhere/control"], in: folder).status == 69)
      #expect(try await qmpctl(["pause"], in: folder).status == 64)
      #expect(try await qmpctl(["pause", "web", "--nonsense"], in: folder).status == 64)
      #expect(try await qmpctl(["list", "--timeout=0"], in: folder).status == 64)

      // Its owner is gone; its owner does not answer.
      _ = try await command("mkdir", [folder.appending("dead").string, folder.appending("mute").string])
      _ = try await command(
        "python3", ["-c", "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", folder.appending("dead/control").string])
      let mute = try ListeningSocket(at: folder.appending("mute/control"))
      let dead = try await qmpctl(["status", "dead"], in: folder)
      #expect(dead.status == 69 && dead.error.hasPrefix("qmpctl: nobody answers at \(folder)/dead/control\n"))
      let silent = try await qmpctl(["status", "mute", "--timeout=3"], in: folder)
      #expect(silent.status == 69 && silent.error.contains("machine 'mute' did not answer within 3s"), "\(silent.error)")
      let list = try JSONVariant(parsing: try await qmpctl(["list", "-j", "--timeout=3"], in: folder).output)
      let entries = try #require(list.elements)
      #expect(entries.map { $0["name"]?.string } == ["dead", "mute", "web"])
      #expect(entries.map { $0["status"]?.string } == [nil, nil, "running"])
      #expect(entries[0]["error"]?.string?.contains("nobody answers") == true && entries[1]["error"]?.string?.contains("3s") == true)
      mute.close()
    }
  }

  @Test("colours are on terminals alone, and not for those who do not want them") @EventLoopActor
  func colors() async throws {
    try await withMachine { folder, _ in
      func onTerminal(_ environment: [String: String]) async throws -> String {
        let variables = ["QMPCTL_PATH": folder.string, "TERM": "xterm", "NO_COLOR": ""].merging(environment) { $1 }
        return try await python("terminal", ["--", qmpctlProgram, "list"], environment: variables).output
      }
      let escape = "\u{1B}"
      let green = "\(escape)[32mrunning\(escape)[0m"
      let colored = try await onTerminal([:])
      #expect(colored.contains(green))
      for environment in [["NO_COLOR": "1"], ["TERM": "dumb"]] {
        let plain = try await onTerminal(environment)
        #expect(plain.contains("running") && !plain.contains(escape))
      }
      let piped = try await qmpctl(["list"], in: folder).output
      #expect(piped.contains("running") && !piped.contains(escape))
    }
  }

  @Test("the machine does what it is told, and its events tell so, to its end") @EventLoopActor
  func operations() async throws {
    try await withTemporaryDirectory { folder in
      let (_, status) = try await withDaemon(bareMachine, directory: folder.appending("web")) { daemon in
        let events = try await withQMPControl(["events", "web", "--json"], in: folder) { output, _ in
          try await output.wait(for: "READY")
          for (word, event) in [("pause", "STOP"), ("resume", "RESUME"), ("reboot", "RESET"), ("poweroff", "POWERDOWN")] {
            let result = try await qmpctl([word, "web"], in: folder)
            #expect(result.status == 0 && result.output == "" && result.error == "", "\(word): \(result)")
            try await output.wait(for: #""event":"\#(event)""#)
            if word == "pause" { #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("paused")) }
          }
          #expect(try await qmpctl(["terminate", "web", "--json"], in: folder).output == "{}\n")
          try await output.waitForEnd()
          return output.text
        }
        #expect(events.status == 0 && events.error == "", "\(events.error)")
        let messages = try events.result.split(separator: "\n").map { try JSONVariant(parsing: String($0)) }
        #expect(messages.allSatisfy { $0["machine"]?.string == "web" })
        let names = messages.compactMap { $0["event"]?.string }
        #expect(names.first == "READY" && names.last == "SHUTDOWN" && messages.last?["data"]?["reason"]?.string == "host-qmp-quit")
      }
      #expect(status == 0)
    }
  }

  @Test("events are lines for people, as many as are wanted, until they are interrupted or nobody reads") @EventLoopActor
  func events() async throws {
    try await withMachine { folder, daemon in
      for signal in [SIGINT, SIGTERM] {
        let shown = try await withQMPControl(["events", "web", "--filter", "RES*"], in: folder, signal: signal) { output, _ in
          try await output.wait(for: "READY")
          for method in ["Pause", "Resume", "Reboot"] { _ = try await daemon.call("io.systemd.MachineInstance.\(method)") }
          try await output.wait(for: "RESET")
          return output.text
        }
        #expect(shown.status == 0 && shown.error == "")
        let lines = shown.result.split(separator: "\n")
        // A time of day, the event, its data.
        #expect(lines.map { $0.split(separator: " ")[1] } == ["READY", "RESUME", "RESET"], "\(shown.result)")
        #expect(lines[2].hasSuffix(" RESET guest=false reason=host-qmp-system-reset"), "\(lines[2])")
        #expect(lines.allSatisfy { $0.firstMatch(of: #/^[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3} /#) != nil })
      }
      // Nothing happens any more that could be written; head(1) has gone after READY.
      let pipeline = try await command(
        "bash", ["-c", "set -o pipefail; '\(qmpctlProgram)' events web | head -n 1"], environment: ["QMPCTL_PATH": folder.string])
      #expect(pipeline.status == 0 && pipeline.output.hasSuffix(" READY\n") && pipeline.error == "", "\(pipeline)")
      // The end of a machine ends its events, also when that is not to be shown.
      let ended = try await withQMPControl(["events", "--filter=STOP"], in: folder) { output, _ in
        try await output.wait(for: "READY")
        _ = try await daemon.call("io.systemd.MachineInstance.Terminate")
        try await output.waitForEnd()
        return output.text
      }
      #expect(ended.status == 0 && ended.error == "" && ended.result.hasSuffix(" web READY\n"), "\(ended)")
    }
  }

  @Test("sessions and monitors are listed with what they do") @EventLoopActor
  func sessionsAndMonitors() async throws {
    try await withMachine { folder, daemon in
      #expect(try await qmpctl(["sessions", "web"], in: folder).output == "No sessions.\n")
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"}"#)
      try await session.wait(for: #"{"return": {}}"#)
      let listed = try await qmpctl(["sessions", "web", "--no-legend"], in: folder).output
      #expect(listed.contains(#/^qv-\S+ +active +full +own +\S+ +\d+ \S.* 30/\d+ +0 /#), "\(listed)")
      let sessions = try JSONVariant(parsing: try await qmpctl(["sessions", "web", "-j"], in: folder).output)
      #expect(sessions.elements?.count == 1 && sessions.elements?.first?["state"]?.string == "active")
      let monitor = try #require(sessions.elements?.first?["monitor"]?.string)
      for words in [["monitors", "web"], ["monitor", "list", "web"]] {
        let monitors = try await qmpctl(words, in: folder)
        #expect(monitors.status == 0 && monitors.output.contains(" control "), "\(monitors)")
        #expect(monitors.output.split(separator: "\n").contains { $0.hasPrefix("\(monitor) ") && $0.contains(" dynamic ") }, "\(monitors)")
      }
      session.close()
    }
  }
}
