import Foundation
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("the examples do what they say", .onEventLoop)
struct ExamplesTests {
  private static func example(_ name: String) throws -> String { try Guest.repositoryRoot().appending("examples/\(name)").string }

  @Test("a shell script with varlinkctl alone") @EventLoopActor
  func shell() async throws {
    _ = try await withDaemon(["run", "--machine", "test", "--memory", "64M", "--", "-S"]) { daemon in
      _ = try await daemon.call("io.systemd.MachineInstance.Resume")
      let result = try await command(try Self.example("varlinkctl-tour"), [daemon.address])
      let expected = [
        #"state: {"running":true,"status":"running"}"#, "event: READY", "event: STOP", "event: RESUME", "a drive: 1 of them",
        "{\"return\": {\"name\": \"test\"}, \"id\": \"mine\"}\r",
      ]
      #expect(result.status == 0 && result.output == expected.map { $0 + "\n" }.joined(), "\(result.output)\(result.error)")
    }
  }

  @Test("Python: QEMU's library on an upgraded connection, and varlink.org's library") @EventLoopActor
  func python() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let session = try await command("/usr/bin/python3", [try Self.example("qemu_qmp_session.py"), daemon.socket.string])
      #expect(session.output == "status: running\nevent: STOP\nevent: RESUME\nerror: CommandNotFound\n", "\(session.error)")
      let calls = try await command("/usr/bin/python3", [try Self.example("varlink_calls.py"), daemon.address])
      let end = "status: running\nname: test\nerror: io.qmpvarlink.QMP.QMPError GenericError\nsessions: 0\n"
      #expect(calls.output.hasPrefix("interface: io.qmpvarlink.Monitors\n") && calls.output.hasSuffix(end), "\(calls.output)\(calls.error)")
    }
  }

  @Test("Swift: a typed call, and QMP on a monitor that was added for it") @EventLoopActor
  func swift() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let result = try await command(productsDirectory.appending("varlink-example").string, [daemon.address])
      #expect(result.status == 0, "\(result.error)")
      #expect(result.output.hasPrefix("status: running\nQEMU: 11."), "\(result.output)")
      let end = "\nname: test\nno-such-command: CommandNotFound: The command no-such-command has not been found\n"
      #expect(result.output.hasSuffix(end), "\(result.output)")
      #expect(try await daemon.call("io.qmpvarlink.Monitors.List").contains("example") == false, "its monitor is gone")
    }
  }

  @Test("a caller like systemd-vmspawn's starts a machine, waits for READY and controls it")
  func vmspawnLike() async throws {
    let result = try await command(
      "/usr/bin/python3", [try Self.example("vmspawn-like"), "spawned", "--register=no", "--", "-machine", "none"],
      environment: ["QMP_VARLINKD": productsDirectory.appending("qmp-varlinkd").string])
    let expected = [
      "ready: Serving machine spawned", "leader is QEMU: True", "describe: running", "pause: {} paused", "terminate: {}", "exit status: 0",
    ]
    #expect(result.status == 0 && result.output == expected.map { $0 + "\n" }.joined(), "\(result.output)\(result.error)")
  }

  @Test("the service's file of options is one, and its drop-in fits the unit")
  func service() async throws {
    try await withTemporaryDirectory { folder in
      // All of it is taken but the image, which is not there.
      let result = try await command(
        productsDirectory.appending("qmp-varlinkd").string,
        ["run", "--machine=web", "--runtime-directory=\(folder)", "--register=no", "--config=\(try Self.example("service/web.conf"))"])
      #expect(result.status == 70 && result.error.contains("--image=/var/lib/qmp-varlink/web/root.qcow2: "), "\(result.error)")

      let unit = contents(of: try Guest.repositoryRoot().appending("systemd/system/qmp-varlink@.service"))
      let path = folder.appending("qmp-varlink@web.service")
      try Data(unit.replacing("/usr/bin/qmp-varlinkd", with: "/bin/true").utf8).write(to: URL(filePath: path.string))
      try FileManager.default.createDirectory(atPath: "\(path).d", withIntermediateDirectories: true)
      try FileManager.default.copyItem(atPath: try Self.example("service/web.drop-in.conf"), toPath: "\(path).d/local.conf")
      let verified = try await command("systemd-analyze", ["verify", "--man=no", path.string])
      #expect(verified.status == 0 && verified.error.isEmpty, "\(verified.error)")
    }
  }
}
