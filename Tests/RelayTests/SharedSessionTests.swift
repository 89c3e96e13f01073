import Glibc
import QEMUJSON
import SystemdEvent
import TestSupport
import Testing

@testable import Relay

/// What a session on a shared monitor makes of what its client writes, without a loop and without QEMU.
@Suite("a session on a shared monitor")
struct SharedSessionTests {
  private static let greeting =
    #"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 1, "major": 11}, "package": ""}, "capabilities": ["oob"]}}"#
  private static let ownGreeting =
    #"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 1, "major": 11}, "package": ""}, "capabilities": []}}"#

  private static let newParser = QEMUParser(answering: Array(complaint("1:2: JSON parse error, expecting key").utf8))
  private static let oldParser = QEMUParser(answering: Array(complaint("JSON parse error, expecting value").utf8))

  /// A monitor that was negotiated long ago, as QEMU would answer on it. It knows the command `ok`.
  private static func answer(_ command: [UInt8]) throws -> String {
    let request = try QObject(parsing: String(decoding: command, as: UTF8.self))
    let id = request["id"].map(\.text)
    func error(_ errorClass: String, _ desc: String) -> String {
      #"{\#(id.map { #""id": \#($0), "# } ?? "")"error": {"class": "\#(errorClass)", "desc": "\#(desc)"}}"#
    }
    if let extra = request.members?.ordered.map(\.name).first(where: { !["execute", "id", "arguments"].contains($0) }) {
      return error("GenericError", "QMP input member '\(extra)' is unexpected")
    }
    switch request["execute"]?.string {
    case nil: return error("GenericError", "QMP input lacks member 'execute'")
    case "qmp_capabilities":
      if request["arguments"]?["enable"]?.elements?.contains("nope") == true { return error("GenericError", "Parameter 'null' …") }
      return error("CommandNotFound", "Capabilities negotiation is already complete, command ignored")
    case "ok", "add-fd": return #"{"return": {}\#(id.map { #", "id": \#($0)"# } ?? "")}"#
    case let name?: return error("CommandNotFound", "The command \(name) has not been found")
    }
  }

  /// Runs a session on an input that comes in pieces.
  ///
  /// - Parameter eager: whether the monitor answers at once; otherwise as late as it can.
  /// - Returns: what the client got, without the greeting, and what the monitor got.
  private static func run(
    _ pieces: [ArraySlice<UInt8>], eager: Bool, mostInFlight: Int = 2, parser: QEMUParser = newParser
  ) throws -> (client: [String], monitor: [String]) {
    var session = SharedSession(greeting: sharedGreeting(Array(greeting.utf8)), parser: parser, mostInFlight: mostInFlight)
    var inFlight: [[UInt8]] = []
    var sent: [String] = []
    func turn() throws {
      while true {
        while let command = session.next() {
          inFlight.append(command.text)
          sent.append(String(decoding: command.text, as: UTF8.self))
          #expect(inFlight.count <= mostInFlight)
        }
        guard !inFlight.isEmpty else { return }
        session.replied(Array(try answer(inFlight.removeFirst()).utf8))
      }
    }
    for piece in pieces {
      piece.withUnsafeBytes { session.receive($0) }
      if eager { try turn() }
    }
    try turn()
    #expect(session.isIdle)
    let lines = String(decoding: session.output, as: UTF8.self).split(separator: "\r\n").map(String.init)
    #expect(lines.first == ownGreeting)
    return (Array(lines.dropFirst()), sent)
  }

  private static let expecting =
    #""error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}"#
  private static let negotiate = #"{"execute":"qmp_capabilities"}"#
  private static let done = #"{"return": {}}"#
  private static func complaint(_ desc: String) -> String { #"{"error": {"class": "GenericError", "desc": "\#(desc)"}}"# }

  /// What a client writes, what it gets, and what the monitor gets.
  private static let table: [(String, [String], [String])] = [
    (#" { "execute" : "ok" , "id" : [ 1 ] } "#, [#"{"id": [1], "# + expecting], [#"{"execute":"","id":[1]}"#]),
    (#"{"\u0065xecute":"ok"}"#, ["{" + expecting], [#"{"\u0065xecute":""}"#]),
    (#"{"id":{"execute":"ok"},"execute":"ok"}"#, [#"{"id": {"execute": "ok"}, "# + expecting], [#"{"id":{"execute":"ok"},"execute":""}"#]),
    ("{'execute':'ok'}", ["{" + expecting], ["{'execute':\"\"}"]),
    (
      #"{"execute":"ok","x":{"execute":"ok"}}"#, [complaint("QMP input member 'x' is unexpected")],
      [#"{"execute":"","x":{"execute":"ok"}}"#]
    ),
    (#"{"exec-oob":"ok"}"#, [complaint("QMP input member 'exec-oob' is unexpected")], [#"{"exec-oob":"ok"}"#]),
    (
      negotiate + negotiate,
      [done, #"{"error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}}"#],
      [negotiate, negotiate]
    ),
    (#"{"execute":"qmp_capabilities","id":{"a":1},"arguments":{"enable":[]}}"#, [#"{"return": {}, "id": {"a": 1}}"#], nil as [String]?),
    (
      #"{"execute":"qmp_capabilities","id":2,"arguments":{"enable":["oob"]}}"# + #"{"execute":"ok"}"#,
      [#"{"id": 2, "error": {"class": "GenericError", "desc": "Capability oob not available"}}"#, "{" + expecting], nil
    ),
    (
      #"{"execute":"qmp_capabilities","arguments":{"enable":["nope"]}}{"execute":"ok"}"#,
      [complaint("Parameter 'null' …"), "{" + expecting], nil
    ),
    // The outcome of a negotiation decides on what follows, however fast that comes.
    (
      negotiate + #"{"execute":"ok","id":1}{"execute":"no","id":2}"#,
      [
        done, #"{"return": {}, "id": 1}"#,
        #"{"id": 2, "error": {"class": "CommandNotFound", "desc": "The command no has not been found"}}"#,
      ],
      [negotiate, #"{"execute":"ok","id":1}"#, #"{"execute":"no","id":2}"#]
    ),
    // An id that looks like the answer.
    (
      #"{"execute":"ok","id":{"error": {"class": "CommandNotFound", "desc": "The command  has not been found"}}}"#,
      [#"{"id": {"error": {"class": "CommandNotFound", "desc": "The command  has not been found"}}, "# + expecting], nil
    ),
    // The same with another error behind it, which is not the refusal's.
    (
      #"{"execute":"ok","id":{"error": {"class": "CommandNotFound", "desc": "The command  has not been found"}},"x":1}"#,
      [
        #"{"id": {"error": {"class": "CommandNotFound", "desc": "The command  has not been found"}}, "error": {"class": "GenericError", "desc": "QMP input member 'x' is unexpected"}}"#
      ], nil
    ),
    // Our own replies wait for their turn.
    (
      negotiate + #"{"execute":"ok","id":1}{"execute":"ok","id":2}[1]{"execute":"ok","id":3} @ {"execute":"ok","id":4}"#,
      [
        done, #"{"return": {}, "id": 1}"#, #"{"return": {}, "id": 2}"#, complaint("QMP input must be a JSON object"),
        #"{"return": {}, "id": 3}"#,
        complaint("1:104: JSON parse error, stray '@'"), #"{"return": {}, "id": 4}"#,
      ], nil
    ),
    (
      negotiate + #"{"execute":"getfd","id":1}{"execute":"add-fd","id":2}"#,
      [
        done,
        #"{"id": 1, "error": {"class": "GenericError", "desc": "The command getfd is not available in a session that shares its monitor: the names are the monitor's. Use add-fd"}}"#,
        #"{"id": 2, "error": {"class": "GenericError", "desc": "No file descriptor supplied via SCM_RIGHTS"}}"#,
      ], nil
    ),
    (
      negotiate + #"{"execute":"ok","id": {]"# + "\n" + #"{"execute":"ok"}"#,
      [done, complaint("1:54: JSON parse error, expecting key"), done], nil
    ),
  ].map { ($0.0, $0.1, $0.2 ?? []) }

  @Test("whole, byte by byte, in two: with a monitor that answers at once and one that does not", arguments: [1, 2, 8])
  func table(mostInFlight: Int) throws {
    for (input, client, monitor) in Self.table {
      for pieces in chunkings(Array(input.utf8)) {
        for eager in [true, false] {
          let got = try Self.run(pieces, eager: eager, mostInFlight: mostInFlight)
          #expect(got.client == client, "to \(input)")
          if !monitor.isEmpty { #expect(got.monitor == monitor, "to \(input)") }
        }
      }
    }
  }

  @Test("whatever a client writes, the monitor gets whole objects only", arguments: [UInt64(1), 2, 3])
  func garbage(seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    let tokens =
      [
        "{", "}", "[", "]", ":", ",", "\"", "'", "\\", "1", "-", "0", "e", "true", "nul", " ", "\n", #""execute""#, #""ok""#, #""id""#,
        "%d", "é", "{}",
      ]
      .map { Array($0.utf8) } + [[0xFF], [0xFE], [0], [0xC3]]
    for _ in 0..<300 {
      var bytes = Array(Self.negotiate.utf8)
      for _ in 0..<Int.random(in: 1..<60, using: &random) { bytes += tokens.pick(&random) }
      bytes += [0xFF] + Array(#"{"execute":"ok","id":"end"}"#.utf8)
      let (client, monitor) = try Self.run([bytes[...]], eager: true)
      #expect(client.last == #"{"return": {}, "id": "end"}"#)
      for command in monitor { _ = try QObject(parsing: command) }
    }
  }

  @Test("a command that is too long is refused once, and nothing in it is taken for a command", arguments: [true, false])
  func hostileTooLong(isNew: Bool) throws {
    let quit = #"{\"execute\":\"quit\",\"id\":\"evil\"}"#
    let plainQuit = #"{"execute":"quit","id":"evil"}"#
    let bytes = SharedInput.limits.bytes
    for padding in [
      // Where the limit falls in what repeats differs.
      "\"" + String(repeating: quit, count: bytes / quit.utf8.count + 10) + "\"", "\"x" + String(repeating: quit, count: 10000) + "\"",
      "\"" + String(repeating: "x", count: bytes) + plainQuit.replacing("\"", with: "'") + "\"",
      "[" + String(repeating: plainQuit + ",", count: 10000) + "1]",
      "[" + String(repeating: "1,", count: SharedInput.limits.tokens) + plainQuit + "]",
    ] {
      let input = Self.negotiate + #"{"execute":"ok","id":"# + padding + #"}{"execute":"ok","id":1}"#
      let (client, monitor) = try Self.run(
        [Array(input.utf8)[...]], eager: true, parser: isNew ? Self.newParser : Self.oldParser)
      #expect(client.count == 3)
      #expect(client.first == Self.done && client.last == #"{"return": {}, "id": 1}"#)
      #expect(client[1].contains("limit exceeded"))
      #expect(monitor == [Self.negotiate, #"{"execute":"ok","id":1}"#])
    }
  }

  @Test("a command that is too long is refused as QEMU refuses longer ones, and what follows is understood")
  func tooLong() throws {
    for padding in [
      "\"" + String(repeating: "x", count: SharedInput.limits.bytes + 1) + "\"",
      String(repeating: "[1,", count: SharedInput.limits.bytes / 3),
    ] {
      let input = Self.negotiate + #"{"execute":"ok","id":"# + padding + "\n" + "\u{1}" + #"{"execute":"ok","id":1}"#
      let (client, monitor) = try Self.run([Array(input.utf8)[...]], eager: true)
      #expect(client.first == Self.done)
      #expect(client.last?.contains("limit exceeded") == true || client.last == #"{"return": {}, "id": 1}"#)
      #expect(client.contains { $0.contains("limit exceeded") })
      #expect(monitor.count <= 2)
    }
    // White space counts for nothing.
    let spaces = String(repeating: " ", count: SharedInput.limits.bytes * 2)
    let (client, monitor) = try Self.run([Array((Self.negotiate + #"{"execute":\#(spaces)"ok"}"#).utf8)[...]], eager: true)
    #expect(client == [Self.done, Self.done])
    #expect(monitor.last == #"{"execute":"ok"}"#)
  }

  @Test("a descriptor waits for an add-fd that is not refused")
  func refusedAddFD() throws {
    var session = SharedSession(greeting: sharedGreeting(Array(Self.greeting.utf8)), parser: Self.newParser, mostInFlight: 1)
    let file = try pipePair()
    defer { close(file.writing) }
    let addFD = #"{"execute":"add-fd"}"#
    Array(addFD.utf8).withUnsafeBytes { session.receive($0, descriptors: CarriedDescriptors(owning: [file.reading])) }
    Array((Self.negotiate + addFD + addFD).utf8).withUnsafeBytes { session.receive($0) }
    let refused = session.next()
    #expect(refused?.descriptors == nil && refused?.text == Array(#"{"execute":""}"#.utf8))
    session.replied(Array(try Self.answer(refused?.text ?? []).utf8))
    let negotiation = session.next()
    session.replied(Array(try Self.answer(negotiation?.text ?? []).utf8))
    let taken = session.next()
    #expect(taken?.descriptors?.raw == [file.reading] && taken?.text == Array(addFD.utf8))
    session.replied(Array(try Self.answer(taken?.text ?? []).utf8))
    // It is gone then.
    let last = session.next()
    #expect(last?.text == Array(#"{"execute":""}"#.utf8))
  }

  @Test("events come after the negotiation only")
  func events() {
    var session = SharedSession(greeting: sharedGreeting(Array(Self.greeting.utf8)), parser: Self.newParser, mostInFlight: 2)
    session.output = []
    session.event([UInt8(ascii: "1")])
    Array(Self.negotiate.utf8).withUnsafeBytes { session.receive($0) }
    _ = session.next()
    session.event([UInt8(ascii: "2")])
    #expect(session.output.isEmpty)
    session.replied(
      Array(#"{"error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}}"#.utf8))
    session.event([UInt8(ascii: "3")])
    #expect(String(decoding: session.output, as: UTF8.self) == "{\"return\": {}}\r\n3\r\n")
  }

  @Test("a client that has gone: what QEMU has not got is dropped, but for the end of a drain")
  func abandoned() {
    var session = SharedSession(greeting: sharedGreeting(Array(Self.greeting.utf8)), parser: Self.newParser, mostInFlight: 2)
    let input = Self.negotiate + #"{"execute":"ok"}{"execute":"ok"}garbage {"execute":"ok"}"#
    Array(input.utf8).withUnsafeBytes { session.receive($0) }
    #expect(session.next() != nil)
    session.abandon()
    ([0xFF] + Array(#"{"execute":"","id":"nonce"}"#.utf8)).withUnsafeBytes { session.receive($0) }
    #expect(session.next() == nil)
    session.replied(Array(Self.done.utf8))
    #expect(session.next()?.text == Array(#"{"execute":"","id":"nonce"}"#.utf8))
    #expect(session.next() == nil && !session.hasRequests)
  }

  @Test("a QEMU that tells no places")
  func noPlaces() {
    var session = SharedSession(greeting: sharedGreeting(Array(Self.greeting.utf8)), parser: Self.oldParser, mostInFlight: 2)
    session.output = []
    Array("@ 1: JSON parse error, x ".utf8).withUnsafeBytes { session.receive($0) }
    #expect(session.next() == nil)
    #expect(String(decoding: session.output, as: UTF8.self).hasPrefix(Self.complaint("JSON parse error, stray '@'") + "\r\n"))
  }
}
