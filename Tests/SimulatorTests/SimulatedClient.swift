import Simulator
import SystemPackage
import SystemdEvent
import TestSupport

/// A simulated QEMU with one monitor of the command line, and a client on it.
@EventLoopActor
struct Simulation {
  let qemu: SimulatedQEMU
  let main: SimulatedClient

  init(clock: SimulatedClock = .still, isPretty: Bool = false, _ configure: (inout SimulatedQEMU.Configuration) -> Void = { _ in }) throws {
    var configuration = SimulatedQEMU.Configuration()
    configuration.name = "test"
    configure(&configuration)
    qemu = SimulatedQEMU(configuration, clock: clock)
    let (ours, theirs) = try socketPair()
    qemu.addMonitor("main", connected: OwnedDescriptor(owning: theirs), isPretty: isPretty)
    main = try SimulatedClient(ours)
    main.server = qemu
  }

  /// The same, negotiated.
  static func negotiated(
    clock: SimulatedClock = .still, outOfBand: Bool = false, _ configure: (inout SimulatedQEMU.Configuration) -> Void = { _ in }
  ) async throws -> Simulation {
    let simulation = try Simulation(clock: clock, configure)
    try await simulation.main.negotiate(outOfBand: outOfBand)
    return simulation
  }

  /// Adds a monitor in the way of the dialect.
  func hotplug(_ id: String, negotiated: Bool = true, options: String = "") async throws -> SimulatedClient {
    let (ours, theirs) = try socketPair()
    let held = OwnedDescriptor(owning: theirs)
    let results = try await [
      main.ask(#"{"execute":"getfd","arguments":{"fdname":"\#(id)"}}"#, descriptors: [held.raw]),
      main.ask(#"{"execute":"chardev-add","arguments":{"id":"\#(id)","backend":\#(SimulatedClient.backend(descriptor: id))}}"#),
      main.ask(#"{"execute":"object-add","arguments":{"qom-type":"monitor-qmp","id":"\#(id)","chardev":"\#(id)"\#(options)}}"#),
    ]
    guard results == Array(repeating: SimulatedClient.done, count: 3) else { throw NeverCame(description: "a hotplug, but \(results)") }
    // Our copy would hide the end.
    withExtendedLifetime(consume held) {}
    let client = try SimulatedClient(ours)
    if negotiated { try await client.negotiate() }
    return client
  }
}

/// One QMP conversation, in text.
@EventLoopActor
final class SimulatedClient {
  nonisolated static let done = #"{"return": {}}"#
  nonisolated static let greeting =
    #"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 1, "major": 11}, "package": ""}, "capabilities": ["oob"]}}"#
  nonisolated static func backend(descriptor name: String) -> String {
    #"{"type":"socket","data":{"addr":{"type":"fd","data":{"str":"\#(name)"}},"server":false}}"#
  }
  nonisolated static func backend(path: FilePath) -> String {
    #"{"type":"socket","data":{"addr":{"type":"unix","data":{"path":"\#(path)"}},"wait":false}}"#
  }
  nonisolated static func refusal(_ desc: String, class errorClass: String = "GenericError") -> String {
    #"{"error": {"class": "\#(errorClass)", "desc": "\#(desc)"}}"#
  }
  nonisolated static func event(_ name: String, seconds: Int = 1000, data: String? = nil) -> String {
    let data = data.map { #", "data": \#($0)"# } ?? ""
    return #"{"timestamp": {"seconds": \#(seconds), "microseconds": 0}, "event": "\#(name)"\#(data)}"#
  }

  let peer: Peer
  /// Kept alive as long as the client, if there is nobody else for that.
  var server: SimulatedQEMU?
  private var consumed = 0

  init(_ descriptor: CInt) throws { peer = try Peer(OwnedDescriptor(owning: descriptor)) }
  init(at path: FilePath) throws { peer = try Peer(.connected(to: path)) }

  func send(_ text: String, descriptors: [CInt] = []) async throws { try await peer.write(text, descriptors: descriptors) }

  /// The next line.
  func line() async throws -> String {
    let from = consumed
    try await peer.wait("a line") { $0.received[from...].contains(UInt8(ascii: "\n")) || $0.hasEnded }
    guard let end = peer.received[from...].firstIndex(of: UInt8(ascii: "\n")), end > from, peer.received[end - 1] == UInt8(ascii: "\r")
    else {
      throw NeverCame(description: "a line, but '\(String(decoding: peer.received[from...], as: UTF8.self))'")
    }
    consumed = end + 1
    return String(decoding: peer.received[from..<end - 1], as: UTF8.self)
  }

  func lines(_ count: Int) async throws -> [String] {
    var lines: [String] = []
    for _ in 0..<count { lines.append(try await line()) }
    return lines
  }

  /// Sends a command and gives the next line.
  func ask(_ text: String, descriptors: [CInt] = []) async throws -> String {
    try await send(text, descriptors: descriptors)
    return try await line()
  }

  func execute(_ name: String, _ arguments: String = "{}") async throws -> String {
    try await ask(#"{"execute":"\#(name)","arguments":\#(arguments)}"#)
  }

  func negotiate(outOfBand: Bool = false) async throws {
    guard try await line() == Self.greeting else { throw NeverCame(description: "a greeting, but \(peer.text)") }
    let reply = try await execute("qmp_capabilities", outOfBand ? #"{"enable":["oob"]}"# : "{}")
    guard reply == Self.done else { throw NeverCame(description: "capabilities, but \(reply)") }
  }

  /// What came and was not looked at, once everything has come to rest.
  func rest() async throws -> String {
    try await quiet()
    return String(decoding: peer.received[consumed...], as: UTF8.self)
  }
}

extension SimulatedClock {
  /// A clock at a round time, that only the test moves.
  static var still: SimulatedClock { SimulatedClock(standingAt: Time(seconds: 1000)) }
}
