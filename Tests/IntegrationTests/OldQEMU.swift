import Foundation
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// Debian 12's QEMU 7.2, which cannot add monitors while it runs; scripts/old-qemu makes it.
enum OldQEMU {
  /// The path of its program.
  static func program() async throws -> String {
    let script = FilePath(#filePath).removingLastComponent().removingLastComponent().removingLastComponent().appending("scripts/old-qemu")
    let made = try await command(script.string, [])
    guard made.status == 0 else { throw RunningDaemon.Failure(made.error) }
    return made.output.trimmingCharacters(in: .whitespacesAndNewlines)
  }
}

/// A way in which a session comes to a monitor, on a QEMU without a machine.
enum SessionKind: String, CaseIterable, CustomTestStringConvertible {
  case own = "a monitor of its own"
  case shared = "sharing an added monitor"
  case sharedOnOld = "sharing the control monitor of QEMU 7.2"

  static let sharing: [SessionKind] = [.shared, .sharedOnOld]

  var testDescription: String { rawValue }
  var isShared: Bool { self != .own }

  /// Runs `body` with a daemon that has such a QEMU.
  @EventLoopActor
  func withDaemon<Result: Sendable>(
    _ options: [String] = [], _ body: @escaping @EventLoopActor (SharingDaemon) async throws -> Result
  ) async throws -> Result {
    try await withTemporaryDirectory { folder in
      let direct = folder.appending("direct")
      var arguments = bareMachine
      if self == .sharedOnOld { arguments.insert(contentsOf: ["--qemu", try await OldQEMU.program()], at: 1) }
      arguments.insert(contentsOf: options, at: 1)
      arguments += ["-qmp", "unix:\(direct),server=on,wait=off"]
      return try await TestSupport.withDaemon(arguments, directory: folder) { daemon in
        try await body(SharingDaemon(daemon: daemon, kind: self, direct: direct))
      }.result
    }
  }
}

/// A daemon whose sessions are of one kind.
@EventLoopActor
struct SharingDaemon {
  let daemon: RunningDaemon
  let kind: SessionKind
  /// The socket of a monitor that QEMU serves itself.
  let direct: FilePath

  /// A connection that has been upgraded; what is received begins with the greeting's line.
  func acquire(_ access: String = "full") async throws -> Peer {
    let connection = try daemon.connect()
    let mode = kind == .shared ? #","mode":"shared""# : ""
    let reply = try await connection.call(
      "io.systemd.QemuMachineInstance.AcquireQMP", #"{"access":"\#(access)"\#(mode)}"#, flags: #","upgrade":true"#)
    guard !reply.contains("\"error\"") else { throw RunningDaemon.Failure(reply) }
    try await connection.peer.wait("the greeting") { $0.received.last == UInt8(ascii: "\n") }
    return connection.peer
  }

  /// The same, negotiated, with nothing received.
  func negotiated() async throws -> Peer {
    let session = try await acquire()
    session.forget()
    try await session.write(#"{"execute":"qmp_capabilities"}"#)
    try await session.wait("the reply") { $0.received.last == UInt8(ascii: "\n") }
    guard session.text == "{\"return\": {}}\r\n" else { throw RunningDaemon.Failure(session.text) }
    session.forget()
    return session
  }

  /// Waits until no session is left.
  func quiet() async throws {
    let watch = try daemon.connect()
    try await watch.send("io.qmpvarlink.Sessions.Watch", flags: #","more":true"#)
    var open: Set<Substring> = []
    repeat {
      let message = try await watch.receive()
      let ids = message.matches(of: /{"id":"([^"]+)"/).map(\.output.1)
      if message.contains(#""change":"closed""#) { open.subtract(ids) } else { open.formUnion(ids) }
    } while !open.isEmpty
  }
}
