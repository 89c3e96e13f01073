import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("sockets that the daemon is started with", .onEventLoop)
struct PassedSocketsTests {
  private static let daemon = productsDirectory.appending("qmp-varlinkd").string
  private static let acquire = "io.systemd.QemuMachineInstance.AcquireQMP"
  private static let describe = "io.systemd.MachineInstance.Describe"
  private static let running = #"{"running":true,"status":"running"}"#
  private static let commands = #"{"execute":"qmp_capabilities"}{"execute":"query-name","id":1}"#

  /// What systemd-socket-activate does not pass on by itself.
  private static var environment: [String] {
    ["NOTIFY_SOCKET", "LD_LIBRARY_PATH"].flatMap { getenv($0) == nil && $0 != "NOTIFY_SOCKET" ? [] : ["-E", $0] }
  }

  @Test("a service manager's socket is used, and stays when the daemon ends") @EventLoopActor
  func activation() async throws {
    try await withTemporaryDirectory { folder in
      let socket = folder.appending("control")
      let launcher = ["systemd-socket-activate", "--now", "--fdname=varlink", "-l", socket.string] + Self.environment
      let (before, status) = try await withDaemon(bareMachine, directory: folder, launcher: launcher) { daemon in
        let result = try await command("varlinkctl", ["-j", "call", daemon.address, Self.describe, "{}"])
        #expect(result.output == Self.running + "\n", "\(result.error)")
        #expect(try await daemon.qmp(#"{"execute":"query-name"}"#).contains("test"))
        #expect(daemon.log.contains("at \(socket)"))
        let environment = contents(of: FilePath("/proc/\(try daemon.qemu())/environ"))
        #expect(!environment.isEmpty && !environment.contains("LISTEN_"), "QEMU is not told of the socket")
        return inode(of: socket)
      }
      #expect(status == 0)
      #expect(before != nil && inode(of: socket) == before, "the service manager goes on listening there")
    }
  }

  private func inode(of path: FilePath) -> UInt64? {
    var status = stat()
    return lstat(path.string, &status) == 0 ? UInt64(status.st_ino) : nil
  }

  /// A folder with a program that serves a machine of its own to who runs it, since `exec:` takes no arguments.
  @EventLoopActor
  private func withProgram(_ body: (_ program: String, _ folder: FilePath) async throws -> Void) async throws {
    try await withTemporaryDirectory { folder in
      let program = folder.appending("vm").string
      let script = """
        #!/bin/sh
        exec \(Self.daemon) run --machine exec --runtime-directory \(folder)/run --stop-timeout 0 -- -machine none 2>>\(folder)/log
        """
      try Data(script.utf8).write(to: URL(filePath: program))
      try #require(chmod(program, 0o755) == 0)
      try await body(program, folder)
    }
  }

  @Test("varlinkctl's exec: address has a machine of its own, which ends with it") @EventLoopActor
  func exec() async throws {
    try await withProgram { program, folder in
      let address = "exec:\(program)"
      let info = try await command("varlinkctl", ["info", address])
      #expect(info.status == 0 && info.output.contains("io.systemd.QemuMachineInstance"), "\(info.error)")
      let described = try await command("varlinkctl", ["-j", "call", address, Self.describe, "{}"])
      #expect(described.output == Self.running + "\n", "\(described.error)")
      let raw = try await command("varlinkctl", ["call", "--upgrade", address, Self.acquire, "{}"], input: Self.commands)
      #expect(raw.status == 0 && raw.output.hasSuffix("{\"return\": {\"name\": \"exec\"}, \"id\": 1}\r\n"), "\(raw.error)\(raw.output)")
      let log = contents(of: folder.appending("log"))
      #expect(
        log.components(separatedBy: "at one connection").count == 4 && log.components(separatedBy: "QEMU exited").count == 4, "\(log)")
      #expect(access(folder.appending("run/control").string, F_OK) != 0, "there is no socket for others")
    }
  }

  @Test("varlinkctl's ssh-exec: address, at two pipes: calls, and a session") @EventLoopActor
  func secureShell() async throws {
    try await withTemporaryDirectory { folder in
      // In place of ssh: its options and the host are not for the command behind them.
      let ssh = folder.appending("ssh").string
      try Data("#!/bin/sh\nwhile [ \"$1\" != env ]; do shift; done\nexec \"$@\"\n".utf8).write(to: URL(filePath: ssh))
      try #require(chmod(ssh, 0o755) == 0)
      let far = "ssh-exec:host:\(Self.daemon) run --machine far --runtime-directory \(folder)/run --stop-timeout 0 -- -machine none"
      let described = try await command("varlinkctl", ["-j", "call", far, Self.describe, "{}"], environment: ["SYSTEMD_SSH": ssh])
      #expect(described.output == Self.running + "\n", "\(described.error)")
      let raw = try await command(
        "varlinkctl", ["call", "--upgrade", far, Self.acquire, "{}"], input: Self.commands, environment: ["SYSTEMD_SSH": ssh])
      #expect(raw.status == 0 && raw.output.hasSuffix("{\"return\": {\"name\": \"far\"}, \"id\": 1}\r\n"), "\(raw.error)\(raw.output)")
    }
  }

  @Test("a client at standard input and output has its replies; the daemon ends when it has them") @EventLoopActor
  func standardStreams() async throws {
    try await withTemporaryDirectory { folder in
      let calls = [Self.describe, "io.systemd.MachineInstance.Pause", Self.describe].map { #"{"method":"\#($0)"}"# + "\0" }
      let result = try await command(
        Self.daemon, ["run", "--machine=test", "--runtime-directory=\(folder)", "--stop-timeout=0", "--", "-machine", "none"],
        input: calls.joined(), environment: ["SYSTEMD_VARLINK_LISTEN": "-"])
      #expect(result.status == 0, "\(result.error)")
      let expected = [#"{"parameters":\#(Self.running)}"#, "{}", #"{"parameters":{"running":false,"status":"paused"}}"#]
      #expect(result.output == expected.map { $0 + "\0" }.joined())
    }
  }

  @Test(
    "what cannot be served is refused, with the reason",
    arguments: [
      ("LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3</dev/null", "LISTEN_FDS: descriptor 3 is no UNIX stream socket"),
      ("LISTEN_FDS=x LISTEN_PID=$$ exec \"$@\"", "LISTEN_FDS: sd_listen_fds: Invalid argument"),
      ("SYSTEMD_VARLINK_LISTEN=- exec \"$@\" </dev/null", "standard input and output are not two pipes or a socket"),
      ("SYSTEMD_VARLINK_LISTEN=/x exec \"$@\"", "SYSTEMD_VARLINK_LISTEN is '/x': only '-' is supported"),
      ("SYSTEMD_VARLINK_LISTEN=- exec \"$@\" --register=yes | cat", "--register=yes: what was passed is no socket with a path"),
    ]) @EventLoopActor
  func refused(launch: String, why: String) async throws {
    try await withTemporaryDirectory { folder in
      let arguments = ["-o", "pipefail", "-c", launch, "bash", Self.daemon, "run", "--machine=test", "--runtime-directory=\(folder)"]
      let result = try await command("bash", arguments)
      #expect(result.status == 70 && result.error.contains(why), "\(result.error)")
    }
  }
}
