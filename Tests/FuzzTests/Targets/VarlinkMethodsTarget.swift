import Bridge
import Interfaces
import Logging
import Machine
import SystemPackage
import SystemdEvent
import TestSupport
import Varlink

/// Every method of the daemon, with any parameters: each call has an answer, or the connection's end.
@EventLoopActor
enum VarlinkMethodsTarget {
  private static var stage: Stage?

  static func run(_ input: [UInt8]) async throws {
    var script = ByteReader(input)
    if stage == nil || stage?.isOver == true {
      await stage?.close()
      stage = try await Stage()
    }
    guard let stage else { return }
    let method = stage.methods[script.number(below: stage.methods.count)]
    let flags = ["", #","more":true"#, #","upgrade":true"#, #","oneway":true"#][script.number(below: 4)]
    let parameters = script.rest.filter { $0 != 0 }
    let peer = try Peer(.connected(to: stage.socket))
    defer { peer.close() }
    try? await peer.write(Array(#"{"method":"\#(method)"\#(flags),"parameters":"#.utf8) + parameters + Array("}".utf8) + [0])
    // Behind a call that wants no reply there is nothing to wait for.
    if flags.contains("oneway") { return try await quiet() }
    guard (try? await peer.wait("an answer") { $0.hasEnded || $0.received.contains(0) }) != nil else {
      throw Violation(description: "\(method) is not answered")
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
    let socket: FilePath
    private(set) var methods: [String] = []

    init() async throws {
      folder = try TemporaryFolder()
      socket = folder.path.appending("control")
      qemu = SimulatedQEMU()
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
      for text in texts {
        var interface = ""
        for line in text.split(separator: "\n") {
          if line.hasPrefix("interface ") { interface = String(line.dropFirst("interface ".count)) }
          guard line.hasPrefix("method "), let end = line.firstIndex(of: "(") else { continue }
          methods.append("\(interface).\(line[..<end].dropFirst("method ".count))")
        }
      }
    }

    /// A call has ended the machine.
    var isOver: Bool { machine.disconnected.result != nil }

    func close() async { server.shutDown() }
  }
}
