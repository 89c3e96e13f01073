import QEMUJSON
import SystemdEvent

@testable import Relay

/// Two clients on one monitor, which write, hang up and are answered in any order.
///
/// What QEMU gets is one whole command at a time, so that neither client can leave its parser amid something; and each client gets one
/// reply to each thing that it wrote, in order, with its id.
enum SharingTarget {
  private static let greeting = sharedGreeting(
    Array(#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 1, "major": 11}, "package": ""}, "capabilities": ["oob"]}}"#.utf8))

  private struct Client {
    var session: SharedSession
    /// Everything that it wrote, read as QEMU would.
    var input: JSONInput
    var outcomes: [JSONInput.Outcome] = []
    var isAbandoned = false
  }

  static func run(_ bytes: [UInt8]) throws {
    var script = ByteReader(bytes)
    let isOld = script.byte() & 1 != 0
    let complaint = isOld ? "JSON parse error, expecting value" : "1:2: JSON parse error, expecting key"
    let parser = QEMUParser(answering: SharedReply.complaint(complaint))
    var clients = (0..<2).map { _ in
      Client(
        session: SharedSession(greeting: greeting, parser: parser, mostInFlight: 2),
        input: JSONInput(ownLimits: SharedInput.limits, assembly: isOld ? .whole : .incremental, keeping: .compact))
    }
    var monitor = JSONInput(assembly: isOld ? .whole : .incremental)
    var inFlight: [(client: Int, reply: [UInt8])] = []

    func send(_ index: Int) throws {
      guard let outgoing = clients[index].session.next() else { return }
      var outcomes: [JSONInput.Outcome] = []
      for byte in outgoing.text { monitor.feed(byte, into: &outcomes) }
      guard outcomes.count == 1, case .value(.object(let members))? = outcomes.first, !monitor.isAmidValue else {
        throw Violation(description: "QEMU got \(readable(outgoing.text)), which is \(outcomes)")
      }
      inFlight.append((index, answer(.object(members))))
    }
    func reply() {
      guard !inFlight.isEmpty else { return }
      let (index, reply) = inFlight.removeFirst()
      clients[index].session.replied(reply)
    }

    while !script.isAtEnd {
      let operation = script.byte()
      let index = Int(operation >> 7)
      switch operation % 8 {
      case 0, 1, 2:
        let written = script.bytes()
        guard !clients[index].isAbandoned else { break }
        var outcomes: [JSONInput.Outcome] = []
        for byte in written { clients[index].input.feed(byte, into: &outcomes) }
        clients[index].outcomes += outcomes
        written.withUnsafeBytes { clients[index].session.receive($0) }
      case 3, 4: try send(index)
      case 5: reply()
      case 6: for client in clients.indices { clients[client].session.event(Array(#"{"timestamp": {}, "event": "E"}"#.utf8)) }
      default:
        clients[index].isAbandoned = true
        clients[index].session.abandon()
      }
    }
    // Everybody is served to the end.
    var turns = 0
    while !inFlight.isEmpty || clients.contains(where: { $0.session.hasRequests }), turns <= bytes.count {
      try send(0)
      try send(1)
      reply()
      turns += 1
    }
    for client in clients {
      try demand(client.session.isIdle && client.session.inFlight == 0, "a session does not come to rest")
      if !client.isAbandoned { try check(client) }
    }
  }

  private static func check(_ client: Client) throws {
    let lines = client.session.output.split(separator: UInt8(ascii: "\n")).map { String(decoding: $0.dropLast(), as: UTF8.self) }
    // A client that writes brackets only gets the same complaint for each, which is read once.
    var known: [String: QObject] = [:]
    let messages = try lines.map { line throws(Violation) in
      if let message = known[line] { return message }
      do {
        let message = try QObject(parsing: line)
        known[line] = message
        return message
      } catch {
        throw Violation(description: "the client got \(line): \(error)")
      }
    }
    let replies = messages.filter { $0["return"] != nil || $0["error"] != nil }
    let expected = client.outcomes.map { outcome -> QObject? in if case .value(let value) = outcome { value["id"] } else { nil } }
    try demand(messages.first?["QMP"] != nil, "no greeting comes first")
    try demand(replies.map { $0["id"] } == expected, "replies \(replies.map(\.text)) to \(client.outcomes)")
  }

  /// A monitor that was negotiated long ago, which knows any command.
  private static func answer(_ request: QObject) -> [UInt8] {
    let id = request["id"].map(\.text)
    func error(_ errorClass: String, _ desc: String) -> [UInt8] {
      Array(#"{\#(id.map { #""id": \#($0), "# } ?? "")"error": {"class": "\#(errorClass)", "desc": "\#(desc)"}}"#.utf8)
    }
    switch request["execute"]?.string {
    case nil: return error("GenericError", "QMP input lacks member 'execute'")
    case "qmp_capabilities": return error("CommandNotFound", "Capabilities negotiation is already complete, command ignored")
    case "": return error("CommandNotFound", "The command  has not been found")
    case _?: return Array(#"{"return": {}\#(id.map { #", "id": \#($0)"# } ?? "")}"#.utf8)
    }
  }
}
