import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@Suite("qmpctl proxy on a real QEMU", .onEventLoop)
struct QMPControlProxyTests {
  @Test("QEMU's own qmp-shell works through it, and its end is the proxy's") @EventLoopActor
  func qmpShell() async throws {
    try await withMachine { folder, daemon in
      // The shell takes its commands from a terminal or a pipe.
      let result = try await command(
        "bash", ["-c", "printf 'query-status\\nstop\\nquery-status\\n' | '\(qmpctlProgram)' proxy web -- qmp-shell {}"],
        environment: ["QMPCTL_PATH": folder.string, "XDG_RUNTIME_DIR": folder.string])
      #expect(result.status == 0, "\(result)")
      #expect(result.output.contains(#""status": "running""#) && result.output.contains(#""status": "paused""#), "\(result)")
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("paused"))
      #expect(try await command("ls", [folder.string]).output == "web\n", "the socket and its folder are gone")
      while try await daemon.call("io.qmpvarlink.Sessions.List") != #"{"parameters":{"sessions":[]}}"# {}
    }
  }

  @Test("the command's exit status is ours, and it has the path wherever it wants it") @EventLoopActor
  func status() async throws {
    try await withMachine { folder, _ in
      let environment = ["XDG_RUNTIME_DIR": folder.string]
      func proxy(_ words: String...) async throws -> CommandResult {
        try await qmpctl(["proxy", "web"] + words, in: folder, environment: environment)
      }
      #expect(try await proxy("--", "sh", "-c", "exit 7", "{}").status == 7)
      #expect(try await proxy("--", "sh", "-c", "kill -9 $$", "{}").status == 137)
      #expect(try await proxy("--", "no-such-program", "{}").status == 127)
      #expect(try await proxy("--", "/dev/null", "{}").status == 126)
      #expect(try await proxy("--", "true").status == 64)
      #expect(try await qmpctl(["proxy", "nothing", "--", "touch", "{}"], in: folder).status == 69)
      let modes = try await proxy("--", "sh", "-c", "stat -c '%a %F' $1 $(dirname $1); echo a={}b", "-", "{}")
      let lines = modes.output.split(separator: "\n")
      #expect(lines.prefix(2) == ["600 socket", "700 directory"], "\(modes)")
      #expect(lines.last?.hasPrefix("a=\(folder)/qmpctl-") == true && lines.last?.hasSuffix("/qmpb") == true)
    }
  }

  @Test("without a command it serves until a signal, each connection a session of its own, with descriptors") @EventLoopActor
  func serving() async throws {
    try await withMachine { folder, daemon in
      let socket = folder.appending("qmp")
      let served = try await withQMPControl(
        ["proxy", "web", "--listen", socket.string, "--json"], in: folder, signal: SIGTERM
      ) { output, _ in
        try await output.wait(for: "\n")
        #expect(output.text == "{\"path\":\"\(socket)\"}\n")
        let one = try Peer(.connected(to: socket))
        let other = try Peer(.connected(to: socket))
        for peer in [one, other] {
          try await peer.write(#"{"execute":"qmp_capabilities"}"#)
          try await peer.wait(for: #"{"return": {}}"#)
          #expect(peer.text.hasPrefix(#"{"QMP": "#))
        }
        #expect(try await daemon.call("io.qmpvarlink.Sessions.List").split(separator: #""id":"#).count == 3)
        let pair = try SocketPair()
        try await one.write(#"{"execute":"getfd","arguments":{"fdname":"passed"},"id":"fd"}"#, descriptors: [pair.theirs.raw])
        try await one.wait(for: #"{"return": {}, "id": "fd"}"#)
        // What was asked before a half-close is answered, however much it is.
        try await other.write(#"{"execute":"query-qmp-schema"}{"execute":"query-name","id":"last"}"#)
        other.endWriting()
        try await other.waitForEnd()
        #expect(other.received.count > 100_000 && other.text.contains(#""id": "last"}"#))
        _ = try await daemon.call("io.systemd.MachineInstance.Pause")
        try await one.wait(for: #""event": "STOP""#)
        return one
      }
      #expect(served.status == 0 && served.error == "", "\(served.error)")
      try await served.result.waitForEnd()
      #expect(!FilePath.exists(socket))
    }
  }

  @Test("a session that is refused is told, and the next one is served") @EventLoopActor
  func refused() async throws {
    try await withMachine(bareMachine.prefix(3) + ["--max-sessions", "1"] + bareMachine.dropFirst(3)) { folder, daemon in
      let socket = folder.appending("qmp")
      let served = try await withQMPControl(["proxy", "web", "--listen", socket.string, "--access=query"], in: folder) { output, _ in
        try await output.wait(for: "\n")
        let one = try Peer(.connected(to: socket))
        try await one.write(#"{"execute":"qmp_capabilities"}{"execute":"quit"}"#)
        try await one.wait(for: "\"error\"")
        let refused = try Peer(.connected(to: socket))
        try await refused.waitForEnd()
        #expect(refused.received.isEmpty)
        one.close()
        while try await daemon.call("io.qmpvarlink.Sessions.List") != #"{"parameters":{"sessions":[]}}"# {}
        let next = try Peer(.connected(to: socket))
        try await next.wait(for: #"{"QMP": "#)
      }
      #expect(served.status == 0 && served.error.contains("too many sessions"), "\(served.error)")
    }
  }
}
