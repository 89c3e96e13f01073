import Bridge
import Interfaces
import Logging
import Machine
import QEMUJSON
import SystemPackage
import SystemdEvent
import TestSupport
import Varlink

@testable import Simulator

/// Every method of the daemon, with any parameters: each call has an answer, or the connection's end.
@EventLoopActor
enum VarlinkMethodsTarget {
  private static var stage: Stage?

  static func run(_ input: [UInt8]) async throws {
    var script = ByteReader(input)
    if stage == nil || stage?.isOver == true {
      stage?.close()
      stage = try await Stage()
    }
    guard let stage else { return }
    let method = stage.methods[script.number(below: stage.methods.count)]
    let choice = script.byte()
    let flags = ["", #","more":true"#, #","upgrade":true"#, #","oneway":true"#][Int(choice % 4)]
    // Bytes that are JSON by chance, or values that are made as the bytes say, most of them with names that the method knows.
    let parameters =
      choice & 4 == 0
      ? script.rest.filter { $0 != 0 } : Array(object(&script, own: method.fields, all: stage.fields, depth: 0).utf8)
    let client = try stage.client()
    try? await client.write(Array(#"{"method":"\#(method.name)"\#(flags),"parameters":"#.utf8) + parameters + Array("}".utf8) + [0])
    // Behind a call that wants no reply there is nothing to wait for.
    if flags.contains("oneway") { return try await quiet() }
    guard (try? await client.wait("an answer") { $0.hasEnded || $0.received.contains(0) }) != nil else {
      throw Violation(description: "\(method.name) is not answered")
    }
    stage.answered(mayBeUpgraded: flags.contains("upgrade"))
  }

  private static func object(_ script: inout ByteReader, own: [String], all: [String], depth: Int) -> String {
    let members = (0..<script.number(below: 5)).map { _ -> String in
      let isOwn = script.byte() % 4 != 0
      let names = isOwn && !own.isEmpty ? own : all
      let name = names[script.number(below: names.count)]
      return #""\#(name)":\#(value(&script, named: name, all: all, depth: depth + 1))"#
    }
    return "{\(members.joined(separator: ","))}"
  }

  private static let numbers = [
    "0", "1", "-1", "4294967296", "9223372036854775807", "18446744073709551615", "-9223372036854775808", "1.5", "1e300",
  ]
  private static let words = ["", "a", "b", "compat_monitor0", "STOP", "raw", "query", "full", "query-status", "\\u00e9\\u0001", "é"]

  private static func value(_ script: inout ByteReader, named name: String, all: [String], depth: Int) -> String {
    switch script.byte() % (depth > 4 ? 6 : 10) {
    case 0: return "null"
    case 1: return script.byte() & 1 == 0 ? "true" : "false"
    case 2: return numbers[script.number(below: numbers.count)]
    case 3, 4, 5:
      // Where a socket or a file would be made, there is none to be made.
      if ["path", "listen", "file"].contains(where: name.lowercased().contains) { return #""/nowhere/a""# }
      return #""\#(words[script.number(below: words.count)])""#
    case 6, 7:
      return
        "[\((0..<script.number(below: 4)).map { _ in value(&script, named: name, all: all, depth: depth + 1) }.joined(separator: ","))]"
    default: return object(&script, own: [], all: all, depth: depth)
    }
  }

  /// A server of everything, and a QEMU that is simulated.
  @EventLoopActor
  private final class Stage {
    private static let silent = Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() }
    private let folder: TemporaryFolder
    private let qemu: SimulatedQEMU
    private let machine: Machine
    private let server: VarlinkServer
    private let socket: FilePath
    /// Calls come over one connection, as long as it lasts.
    private var connection: Peer?
    private(set) var methods: [(name: String, fields: [String])] = []
    /// The names of all parameters and fields.
    private(set) var fields: [String] = []

    init() async throws {
      folder = try TemporaryFolder()
      socket = folder.path.appending("control")
      qemu = SimulatedQEMU(try Self.configuration.get())
      let path = folder.path.appending("qmp")
      try qemu.addMonitor(listeningAt: path)
      guard let name = MachineName("fuzz") else { throw Violation(description: "a name") }
      machine = try await Machine.attach(name: name, to: path, logger: Self.silent)
      server = try VarlinkServer(.init(vendor: "test", product: "test", version: "1"), errorReply: varlinkError(for:))
      try ServedInterfaces.add(to: server)
      let sessions = Sessions(machine: machine, logger: Self.silent)
      try MachineInstanceService.add(to: server, machine: machine, unreadLimit: 1 << 20)
      try QemuMachineInstanceService.add(to: server, sessions: sessions)
      try SessionsService.add(to: server, sessions: sessions)
      try MonitorsService.add(to: server, monitors: AddedMonitors(machine: machine, sessions: sessions, limit: 16, logger: Self.silent))
      try server.listen(on: socket, mode: 0o600)
      try server.serve()
      guard await QMPService.add(to: server, machine: machine, logger: Self.silent) else {
        throw Violation(description: "QEMU's commands are not served")
      }
      let texts = [
        Interfaces.machineInstance, Interfaces.qemuMachineInstance, Interfaces.sessions, Interfaces.monitors,
        try await QMPService.definition(for: machine),
      ]
      for text in texts { read(text) }
    }

    /// The schema has only what the simulator can: a call that ends the machine is followed by a new one, which is to be quick.
    private static let configuration = Result {
      let whole = SimulatedQEMU().schema.elements ?? []
      let used = whole.filter { entry in entry["members"]?.elements?.first?["name"]?.string?.hasPrefix("simulated-") != true }
      var configuration = SimulatedQEMU.Configuration()
      configuration.script = try Script(parsing: #"{"execute": "query-qmp-schema", "return": \#(QObject.array(used).text)}"#)
      configuration.longestLog = 16
      return configuration
    }

    /// Takes the names out of the definition of an interface.
    private func read(_ text: String) {
      var interface = ""
      // Of the method whose parameters are being read.
      var isInMethod = false
      for line in text.split(separator: "\n") where !line.hasPrefix("#") {
        if line.hasPrefix("interface ") { interface = String(line.dropFirst("interface ".count)) }
        var rest = line
        if line.hasPrefix("method "), let start = line.firstIndex(of: "(") {
          methods.append(("\(interface).\(line[..<start].dropFirst("method ".count))", []))
          isInMethod = true
          rest = line[start...]
        }
        let end = rest.firstIndex(of: ")") ?? rest.endIndex
        for (part, isParameters) in [(rest[..<end], isInMethod), (rest[end...], false)] {
          let names = part.split { !($0.isLetter || $0.isNumber || "_:".contains($0)) }.filter { $0.hasSuffix(":") }.map {
            String($0.dropLast())
          }
          fields += names
          if isParameters { methods[methods.count - 1].fields += names }
        }
        if end != rest.endIndex { isInMethod = false }
      }
    }

    /// A call has ended the machine.
    var isOver: Bool { machine.disconnected.result != nil }

    /// Where the next call goes.
    func client() throws -> Peer {
      if let connection, !connection.hasEnded { return connection }
      let made = try Peer(.connected(to: socket))
      connection = made
      return made
    }

    /// Keeps the connection if nothing more is to come on it, and it still speaks Varlink.
    func answered(mayBeUpgraded: Bool) {
      guard let connection else { return }
      let (answer, text) = (connection.received, connection.text)
      let isOver = answer.last == 0 && answer.count { $0 == 0 } == 1 && !text.contains(#""continues":true"#)
      guard !connection.hasEnded, isOver, !mayBeUpgraded || text.contains(#""error":"#) else { return drop() }
      connection.forget()
    }

    func drop() {
      connection?.close()
      connection = nil
    }

    func close() {
      drop()
      server.shutDown()
    }
  }
}
