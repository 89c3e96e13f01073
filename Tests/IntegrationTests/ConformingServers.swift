import Foundation
import Glibc
import QEMUJSON
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// QEMU or the simulator, with a monitor at a path.
@EventLoopActor
struct ConformingServer {
  /// A folder of its own; the names of both are of one length, because columns are counted.
  let folder: FilePath
  /// The simulator, if it is that.
  var simulator: SimulatedQEMU?

  var path: FilePath { folder.appending("qmp") }

  /// A client whose turn it is.
  func connect() async throws -> Peer {
    let client = try Peer(.connected(to: path))
    try await client.wait(for: "QMP")
    return client
  }

  /// The backend of a chardev that listens in its folder.
  func backend(_ name: String) -> String {
    #"{"type":"socket","data":{"addr":{"type":"unix","data":{"path":"\#(folder.appending(name))"}},"wait":false}}"#
  }

  /// What it said, without what cannot be the same.
  func told(_ bytes: [UInt8]) -> String {
    let text = String(decoding: bytes, as: UTF8.self).replacing(folder.string, with: "FOLDER")
      .replacing(/"seconds": \d+/, with: #""seconds": S"#).replacing(/"microseconds": \d+/, with: #""microseconds": M"#)
      .replacing(/"fd": \d+/, with: #""fd": N"#)
    return text.split(separator: "\r\n", omittingEmptySubsequences: false).map { Self.sorted(String($0)) }.joined(separator: "\r\n")
  }

  /// A reply that is a list of objects, with those in the order of their text.
  private static func sorted(_ line: String) -> String {
    guard line.hasPrefix(#"{"return": [{"#), let reply = try? QObject(parsing: line), let elements = reply["return"]?.elements else {
      return line
    }
    return "sorted: " + elements.map(\.text).sorted().joined(separator: ", ") + (reply["id"].map { " id \($0.text)" } ?? "")
  }
}

/// Both of them, to be asked the same.
@EventLoopActor
struct BothServers {
  let folder: FilePath
  /// QEMU first.
  let servers: [ConformingServer]
  /// Brings any state of QEMU's lexer to an end, so that every conversation has one.
  private static let end = [0xFF] + Array(#"{"execute": "no-such-cmd", "id": "the end"}"#.utf8)

  /// Has the same conversation with both.
  func compare(_ bytes: [UInt8], piece: Int? = nil) async throws {
    var texts: [String] = []
    for server in servers {
      let client = try await server.connect()
      let all = bytes + Self.end
      for start in stride(from: 0, to: all.count, by: piece ?? all.count) {
        try await client.write(all[start..<min(all.count, start + (piece ?? all.count))])
      }
      try await client.wait(for: #""id": "the end""#)
      try await client.wait("the last line's end") { $0.received.last == UInt8(ascii: "\n") }
      texts.append(server.told(client.received))
      client.close()
    }
    #expect(texts[0] == texts[1], "to \(String(decoding: bytes, as: UTF8.self))")
  }

  /// The same for one command on a negotiated monitor, whose text may have FOLDER in it.
  func compareReplies(_ command: String) async throws {
    var texts: [String] = []
    for server in servers {
      let client = try await server.connect()
      try await client.write(#"{"execute":"qmp_capabilities"}"# + command.replacing("FOLDER", with: server.folder.string))
      try await client.write(#"{"execute": "no-such-cmd", "id": "the end"}"#)
      try await client.wait(
        for: #"{"id": "the end", "error": {"class": "CommandNotFound", "desc": "The command no-such-cmd has not been found"}}"# + "\r\n")
      texts.append(server.told(client.received))
      client.close()
    }
    #expect(texts[0] == texts[1], "to \(command)")
  }
}

/// Runs QEMU without a machine, and the simulator as the same version.
@EventLoopActor
func withBoth(_ body: @escaping @EventLoopActor (BothServers) async throws -> Void) async throws {
  try await withTemporaryDirectory { folder in
    let servers = ["a", "b"].map { ConformingServer(folder: folder.appending($0)) }
    for server in servers { try #require(mkdir(server.folder.string, 0o700) == 0) }
    // It goes into the background once its sockets are there.
    let pidfile = folder.appending("pid")
    let started = try await command(
      "qemu-system-x86_64",
      [
        "-machine", "none", "-nodefaults", "-display", "none", "-name", "test", "-qmp", "unix:\(servers[0].path),server=on,wait=off",
        "-daemonize",
        "-pidfile", pidfile.string,
      ])
    try #require(started.status == 0, "\(started.error)")
    let process = try #require(Int32(contents(of: pidfile).trimmingCharacters(in: .whitespacesAndNewlines)))
    defer { kill(process, SIGKILL) }

    var configuration = SimulatedQEMU.Configuration()
    configuration.name = "test"
    let greeting = try await servers[0].connect()
    try await greeting.wait(for: "\r\n")
    greeting.close()
    let version = try #require(try QObject(parsing: greeting.text)["QMP"]?["version"])
    let numbers = ["major", "minor", "micro"].compactMap { version["qemu"]?[$0]?.integer }
    configuration.version = .init(major: numbers[0], minor: numbers[1], micro: numbers[2])
    configuration.package = version["package"]?.string ?? ""
    let simulator = SimulatedQEMU(configuration)
    try simulator.addMonitor(listeningAt: servers[1].path)
    try await body(BothServers(folder: folder, servers: [servers[0], ConformingServer(folder: servers[1].folder, simulator: simulator)]))
  }
}
