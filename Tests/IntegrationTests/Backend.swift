import Foundation
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// What a daemon of a test manages: a real QEMU, or the simulator in one of the dialects in which monitors can be added.
enum Backend: String, CaseIterable, CustomTestStringConvertible {
  case qemu = "a real QEMU"
  case objects = "the simulator, whose monitors are objects"
  case commands = "the simulator, with commands for monitors"

  var testDescription: String { rawValue }

  /// The ids of monitors that are on its command line.
  static let commandLineMonitor = "on-command-line"
  static let humanMonitor = "for-people"

  /// Runs `body` with a daemon that manages such a machine, and with options of its own.
  ///
  /// - Parameter preconfig: whether the machine waits for x-exit-preconfig before it is made.
  @EventLoopActor
  func withDaemon<Result: Sendable>(
    _ options: [String] = [], preconfig: Bool = false, _ body: @escaping @EventLoopActor (RunningDaemon) async throws -> Result
  ) async throws -> Result {
    switch self {
    case .qemu:
      let machine =
        [
          "run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--", "-machine", "none",
          "-chardev", "null,id=cl", "-object", "monitor-qmp,id=\(Self.commandLineMonitor),chardev=cl",
          "-chardev", "null,id=hu", "-object", "monitor-hmp,id=\(Self.humanMonitor),chardev=hu",
        ] + (preconfig ? ["-preconfig"] : [])
      return try await TestSupport.withDaemon([machine[0]] + options + machine.dropFirst(), body).result
    case .objects, .commands:
      return try await withTemporaryDirectory { folder in
        let control = folder.appending("control-monitor")
        let simulator =
          [
            "--listen", control.string, "--monitor", "\(Self.commandLineMonitor)=\(folder.appending("other"))", "--hmp", Self.humanMonitor,
            "--dialect", self == .objects ? "object" : "monitor-add",
          ] + (preconfig ? ["--preconfig"] : [])
        return try await withReadyProcess("qmp-simulator", simulator) { _ in
          try await TestSupport.withDaemon(["attach", "--machine", "test", "--qmp", "unix:\(control)"] + options, body).result
        }
      }
    }
  }

  /// Runs `body` with a command that every other waits for once it is executed, and with what ends that, given a session with
  /// out-of-band execution.
  @EventLoopActor
  func withBlockingCommand(
    id: String, in folder: FilePath, _ body: @EventLoopActor (String, (Peer) async throws -> Void) async throws -> Void
  ) async throws {
    guard self == .qemu else {
      return try await body(#"{"execute":"x-simulator-block","id":"\#(id)"}"#) { session in
        try await session.write(#"{"exec-oob":"x-simulator-unblock"}"#)
      }
    }
    // QEMU opens a FIFO on its main thread, and waits there for somebody who writes.
    let fifo = folder.appending("fifo")
    try #require(await command("mkfifo", [fifo.string]).status == 0)
    defer { unlink(fifo.string) }
    let node = #"{"driver":"file","node-name":"\#(id)","filename":"\#(fifo)","read-only":true}"#
    try await body(#"{"execute":"blockdev-add","id":"\#(id)","arguments":\#(node)}"#) { _ in
      try FileDescriptor.open(fifo, .writeOnly).close()
    }
  }

  /// How the machine's QMP spells the removal of a monitor.
  func removal(of id: String) -> String {
    #"{"execute":"\#(self == .commands ? "monitor-remove" : "object-del")","arguments":{"id":"\#(id)"},"id":"removal"}"#
  }
  /// How the machine's QMP spells the adding of a monitor.
  func addition(of id: String, chardev: String) -> String {
    let type = self == .commands ? "" : #""qom-type":"monitor-qmp","#
    return
      #"{"execute":"\#(self == .commands ? "monitor-add" : "object-add")","arguments":{\#(type)"id":"\#(id)","chardev":"\#(chardev)"}}"#
  }
}

/// A client of `io.qmpvarlink.Monitors`.
@EventLoopActor
struct MonitorsClient {
  static let interface = "io.qmpvarlink.Monitors"
  let daemon: RunningDaemon

  func call(_ method: String, _ parameters: String = "{}") async throws -> String {
    try await daemon.call("\(Self.interface).\(method)", parameters)
  }

  /// The path in the daemon's folder for a monitor's socket.
  func path(_ name: String) -> FilePath { daemon.directory.appending(name) }

  func listen(_ id: String, at path: FilePath? = nil, pretty: Bool = false) async throws -> String {
    try await call("Add", #"{"id":"\#(id)","listen":"\#(path ?? self.path(id))","pretty":\#(pretty)}"#)
  }

  func add(_ id: String, chardev: String) async throws -> String { try await call("Add", #"{"id":"\#(id)","chardev":"\#(chardev)"}"#) }

  /// Adds a monitor on a socket that is passed.
  func add(_ id: String, descriptor: CInt) async throws -> String {
    let client = try daemon.connect()
    let call = #"{"method":"\#(Self.interface).Add","parameters":{"id":"\#(id)","fileDescriptorIndex":0}}"# + "\0"
    try await client.peer.write(Array(call.utf8), descriptors: [descriptor])
    return try await client.receive()
  }

  func remove(_ id: String) async throws -> String { try await call("Remove", #"{"id":"\#(id)"}"#) }

  /// What List says of one monitor, as text; nil if there is none.
  func listed(_ id: String) async throws -> String? {
    let list = try await call("List")
    guard let start = list.range(of: #"{"id":"\#(id)","#) else { return nil }
    return String(list[start.lowerBound...].prefix { $0 != "}" })
  }

  /// A chardev that nothing uses.
  func makeChardev(_ id: String) async throws {
    let reply = try await daemon.qmp(
      #"{"execute":"chardev-add","arguments":{"id":"\#(id)","backend":{"type":"null","data":{}}}}"#)
    guard reply.contains("return") else { throw RunningDaemon.Failure(reply) }
  }

  /// Connects to a monitor's socket, and waits for the greeting.
  func connect(_ id: String, at path: FilePath? = nil) async throws -> Peer {
    let client = try Peer(.connected(to: path ?? self.path(id)))
    try await client.wait(for: #""QMP""#)
    return client
  }

  static func error(_ name: String, _ parameters: String) -> String {
    #"{"error":"\#(interface).\#(name)","parameters":{\#(parameters)}}"#
  }
}
