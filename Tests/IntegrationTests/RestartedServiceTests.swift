import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// The unit as systemd runs it: a service manager of a user's, in a mount namespace of its own with a cgroup to itself.
@Suite("the service under systemd", .onEventLoop)
struct RestartedServiceTests {
  private static let service = "qmp-varlink@web.service"

  /// What a manager needs that a container may not have. It ends when it is told to, and leaves no cgroup.
  private static let manager = """
    set -e
    mount -t tmpfs none /run
    mkdir -p /run/systemd/system
    mount -t cgroup2 none /sys/fs/cgroup
    mine=/sys/fs/cgroup/qmp-varlink-test-$$
    mkdir $mine
    (echo 0 >$mine/cgroup.procs && exec /usr/lib/systemd/systemd --user --log-target=console --log-level=notice) &
    trap 'kill $!' TERM INT
    wait || :
    wait || :
    find $mine -depth -type d -exec rmdir {} +
    """

  /// What systemctl says.
  private struct Manager {
    let environment: [String: String]
    func callAsFunction(_ words: String...) async throws -> String {
      let result = try await command("systemctl", ["--user"] + words, environment: environment)
      guard result.status == 0 else { throw RunningDaemon.Failure("systemctl \(words): \(result.error)") }
      return result.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }
    func property(_ name: String) async throws -> String { try await self("show", service, "--value", "-p", name) }
  }

  /// Starts the unit as it is in the checkout, but with the daemon that was built.
  @EventLoopActor
  private func withService(_ body: @escaping @EventLoopActor (Manager, FilePath) async throws -> Void) async throws {
    try await withTemporaryDirectory { folder in
      let configuration = folder.appending("config")
      for name in ["config/systemd/user", "config/qmp-varlink", "run"] {
        try FileManager.default.createDirectory(atPath: folder.appending(name).string, withIntermediateDirectories: true)
      }
      let unit = contents(of: try Guest.repositoryRoot().appending("systemd/user/qmp-varlink@.service"))
      let daemon = productsDirectory.appending("qmp-varlinkd").string
      // More often in a few seconds than a service may be started otherwise.
      let text = unit.replacing("/usr/bin/qmp-varlinkd", with: daemon).replacing("[Unit]\n", with: "[Unit]\nStartLimitIntervalSec=0\n")
      try Data(text.utf8).write(to: URL(filePath: "\(configuration)/systemd/user/qmp-varlink@.service"))
      let options = "--register=no\n--memory=64M\n--park-after=0.2\n--stop-timeout=0\n--\n-machine\nnone\n"
      try Data(options.utf8).write(to: URL(filePath: "\(configuration)/qmp-varlink/web.conf"))
      let environment = [
        "XDG_RUNTIME_DIR": "\(folder)/run", "XDG_CONFIG_HOME": configuration.string, "HOME": folder.string,
        "LD_LIBRARY_PATH": getenv("LD_LIBRARY_PATH").map { String(cString: $0) } ?? "",
      ]
      let launcher = ["env"] + environment.map { "\($0.key)=\($0.value)" } + ["unshare", "--mount", "sh", "-c", Self.manager]
      try await withReadyCommand(launcher) {
        let manager = Manager(environment: environment)
        _ = try await manager("start", Self.service)
        try await body(manager, folder.appending("run/qmp-varlink/web/control"))
        if try await manager.property("ActiveState") == "active" { _ = try await manager("stop", Self.service) }
      }
    }
  }

  @Test("systemctl restart keeps the machine and its sessions; kill -9 the machine; stop ends it") @EventLoopActor
  func restart() async throws {
    try await withService { manager, socket in
      let sessions = try await [session(at: socket), session(at: socket), session(at: socket)]
      let qemu = try await children(of: manager)
      #expect(qemu.count == 1, "\(qemu)")
      for round in 0..<4 {
        try await sessions[0].write(#"{"execute":"query-na"#)
        let before = try await manager.property("MainPID")
        _ = try await manager("restart", Self.service)
        #expect(try await manager.property("MainPID") != before)
        #expect(try await manager.property("NFileDescriptorStore") == "0", "nothing is kept that was taken over")
        #expect(try await children(of: manager) == qemu)
        try await sessions[0].write(#"me","id":\#(round)}"#)
        try await sessions[1].write(#"{"execute":"stop"}{"execute":"cont","id":\#(round)}"#)
        for session in sessions[...1] { try await session.wait(for: #""id": \#(round)}"#) }
        for session in sessions {
          try await session.wait("the event") { $0.text.components(separatedBy: #""RESUME"}"#).count == round + 2 }
        }
      }
      // One that goes while there is no daemon is missed by the next.
      sessions[2].close()
      _ = try await manager("restart", Self.service)
      #expect(try await call(at: socket, "io.qmpvarlink.Sessions.List").components(separatedBy: #""peer""#).count <= 4)

      let before = try await manager.property("MainPID")
      _ = try await manager("kill", "--kill-whom=main", "--signal=KILL", Self.service)
      for session in sessions[...1] { try await session.waitForEnd() }
      while try await manager.property("MainPID") == before { _ = await Promise<Void>().value(within: .milliseconds(50)) }
      #expect(try await call(at: socket, "io.systemd.MachineInstance.Describe").contains("running"))
      #expect(try await children(of: manager) == qemu, "the same machine")
      #expect(try await manager.property("NRestarts") == "1")

      _ = try await manager("stop", Self.service)
      #expect(try await manager.property("ActiveState") == "inactive")
      #expect(contents(of: FilePath("/proc/\(qemu[0])/cmdline")).isEmpty, "the machine has ended")
    }
  }

  @EventLoopActor
  private func connect(_ socket: FilePath) async throws -> VarlinkPeer {
    // Between the end of a daemon that was killed and the next there is no socket.
    while true {
      if let peer = try? Peer(.connected(to: socket)) { return VarlinkPeer(peer) }
      _ = await Promise<Void>().value(within: .milliseconds(20))
    }
  }

  @EventLoopActor
  private func call(at socket: FilePath, _ method: String) async throws -> String { try await connect(socket).call(method) }

  @EventLoopActor
  private func session(at socket: FilePath) async throws -> Peer {
    let connection = try await connect(socket)
    _ = try await connection.call("io.systemd.QemuMachineInstance.AcquireQMP", flags: #","upgrade":true"#)
    try await connection.peer.write(#"{"execute":"qmp_capabilities"}"#)
    try await connection.peer.wait(for: #"{"return": {}}"#)
    return connection.peer
  }

  /// The processes of the service beside the daemon.
  @EventLoopActor
  private func children(of manager: Manager) async throws -> [Int32] {
    let group = try await manager.property("ControlGroup")
    let main = try await manager.property("MainPID")
    guard !group.isEmpty else { return [] }
    return processes(in: group).filter { "\($0)" != main }
  }

  /// The processes of a cgroup, as they tell it themselves: where it is mounted is the manager's alone.
  private func processes(in group: String) -> [Int32] {
    let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return all.compactMap { Int32($0) }.filter { process in
      contents(of: FilePath("/proc/\(process)/cgroup")).split(separator: "\n").contains { $0 == "0::\(group)" }
    }
  }
}
