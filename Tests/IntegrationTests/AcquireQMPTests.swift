import Foundation
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("AcquireQMP on a real QEMU", .onEventLoop)
struct AcquireQMPTests {
  private static let method = "io.systemd.QemuMachineInstance.AcquireQMP"

  @Test("commands piped into varlinkctl are answered in full, each of 200 times") @EventLoopActor
  func pipedCommands() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let commands = #"{"execute":"qmp_capabilities"}{"execute":"query-status","id":1}"#
      for _ in 0..<200 {
        let result = try await command("varlinkctl", ["call", "--upgrade", daemon.address, Self.method, "{}"], input: commands)
        try #require(result.status == 0, "\(result.error)")
        let lines = result.output.split(whereSeparator: \.isNewline)
        try #require(lines.count == 3, "\(result.output)")
        #expect(lines[0].hasPrefix(#"{"QMP": "#))
        #expect(lines[1] == #"{"return": {}}"#)
        #expect(lines[2] == #"{"return": {"status": "running", "running": true}, "id": 1}"#)
      }
    }
  }

  @Test("bytes right behind the upgrade request are executed, in order") @EventLoopActor
  func pipelinedBytes() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let connection = try daemon.connect()
      let request = Array(#"{"method":"\#(Self.method)","upgrade":true}"#.utf8) + [0]
      let commands = #"{"execute":"qmp_capabilities","id":"a"}"# + (0..<50).map { #"{"execute":"query-name","id":\#($0)}"# }.joined()
      try await connection.peer.write(request + Array(commands.utf8))
      #expect(try await connection.receive().hasPrefix(#"{"parameters":{"id":"qv-"#))
      try await connection.peer.wait(for: #""id": 49}"#)
      let ids = connection.peer.text.split(separator: #""id": "#).dropFirst().map { $0.prefix { $0 != "}" } }
      #expect(ids == [#""a""#] + (0..<50).map { "\($0)"[...] })
    }
  }

  @Test("a slow reader that half-closed gets two schemas whole, then the end") @EventLoopActor
  func slowReader() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let session = try await daemon.acquireQMP()
      session.reads = false
      try await session.write(#"{"execute":"qmp_capabilities"}{"execute":"query-qmp-schema"}{"execute":"query-qmp-schema","id":2}"#)
      session.endWriting()
      // Others go on meanwhile.
      for _ in 0..<20 { _ = try await daemon.call("io.systemd.MachineInstance.Describe") }
      session.reads = true
      try await session.waitForEnd()
      let lines = session.text.split(whereSeparator: \.isNewline)
      try #require(lines.count == 4)
      #expect(lines[2].count > 100_000 && lines[3].count > 100_000)
      #expect(lines[3].hasSuffix(#""id": 2}"#))
    }
  }

  @Test(
    "what a client leaves unfinished costs it no reply, and shows none that is not its own",
    arguments: [
      "", #"{"execute":"query-ver"#, #""abc"#, #"{"a":["#, "nonsense ", "{]", "@", "\u{1}", "'x", "\\", "[1,", "{", "\u{FFFD}",
    ]) @EventLoopActor
  func unfinishedInput(rest: String) async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"}{"execute":"nope","id":1}{"execute":"query-name"}"# + rest)
      session.endWriting()
      try await session.waitForEnd()
      let direct = try await directReplies(
        daemon, #"{"execute":"qmp_capabilities"}{"execute":"nope","id":1}{"execute":"query-name"}"# + rest)
      #expect(session.text.split(separator: "\r\n").dropFirst() == direct.split(separator: "\r\n").dropFirst())
    }
  }

  /// What QEMU itself answers on a monitor of its own, to bytes and a half-close.
  @EventLoopActor
  private func directReplies(_ daemon: RunningDaemon, _ bytes: String) async throws -> String {
    let path = daemon.directory.appending("direct")
    let address = #"{"type":"unix","data":{"path":"\#(path)"}}"#
    _ = try await daemon.qmp(
      #"{"execute":"chardev-add","arguments":{"id":"direct","backend":{"type":"socket","data":{"addr":\#(address),"wait":false}}}}"#)
    _ = try await daemon.qmp(
      #"{"execute":"object-add","arguments":{"qom-type":"monitor-qmp","id":"direct","chardev":"direct"}}"#)
    let peer = try Peer(.connected(to: path))
    try await peer.write(bytes)
    peer.endWriting()
    try await peer.waitForEnd()
    return peer.text
  }

  @Test("without the upgrade flag, or with another one, there is an error and no hang") @EventLoopActor
  func flags() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let expected = #"{"error":"org.varlink.service.ExpectedUpgrade"}"#
      #expect(try await daemon.call(Self.method) == expected)
      #expect(try await daemon.connect().call(Self.method, flags: #","more":true"#) == expected)
      let oneway = try daemon.connect()
      try await oneway.send(Self.method, flags: #","oneway":true"#)
      #expect(try await oneway.call("io.systemd.MachineInstance.Describe").contains("running"))
      #expect(
        try await daemon.qmp(#"{"execute":"query-chardev"}"#).components(separatedBy: "qv-").count == 4,
        "one session, the control monitor and its spare")
    }
  }

  @Test("sessions have monitors of their own: ids, events and negotiation do not mix") @EventLoopActor
  func independentSessions() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let one = try await daemon.acquireQMP()
      let other = try await daemon.acquireQMP()
      let silent = try await daemon.acquireQMP()
      try await one.write(#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#)
      try await other.write(#"{"execute":"qmp_capabilities"}"#)
      try await one.wait(for: #"{"return": {}}"#)
      try await other.wait(for: #"{"return": {}}"#)
      #expect(try await daemon.call("io.systemd.MachineInstance.Pause") == "{}")
      try await one.wait(for: #""event": "STOP""#)
      try await other.wait(for: #""event": "STOP""#)
      try await one.write(#"{"exec-oob":"migrate-pause","id":"mine"}"#)
      try await one.wait(for: #""id": "mine""#)
      #expect(!other.text.contains("mine"))
      #expect(!silent.text.contains("STOP"), "no events before the negotiation")
      try await silent.write(#"{"execute":"query-name","id":5}"#)
      try await silent.wait(for: "CommandNotFound")
    }
  }

  @Test("QEMU's own Python client works over an upgraded socket") @EventLoopActor
  func qemuPythonClient() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let result = try await python("qemu_qmp_session", [daemon.socket.string])
      #expect(result.status == 0, "\(result.error)")
      #expect(result.output == "True\n{'status': 'running', 'running': True}\nSTOP\nCommandNotFound\n10\ndescriptor passed\n")
    }
  }
}
