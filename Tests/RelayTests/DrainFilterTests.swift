import TestSupport
import Testing

@testable import Relay

@Suite struct DrainFilterTests {
  struct Case: CustomTestStringConvertible {
    let testDescription: String
    /// What came before the drain.
    let before: String
    let input: String
    let output: String

    init(_ what: String, after before: String = "", _ input: String, gives output: String) {
      testDescription = what
      self.before = before
      self.input = input
      self.output = output
    }
  }

  static let nonce = "f00dfeedf00dfeed"
  static let end = Lines.lexerError + Lines.answer(nonce)
  static let reply = #"{"return": {"status": "running", "error": null}}"# + "\r\n"
  static let failure = #"{"error": {"class": "GenericError", "desc": "Device 'x' not found"}}"# + "\r\n"
  static let failureWithID = #"{"id": 7, "error": {"class": "GenericError", "desc": "no"}}"# + "\r\n"
  static let event =
    #"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP", "data": {"error": "{\"error\""}}"# + "\r\n"
  static let greeting =
    #"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 1, "major": 11}}, "capabilities": ["oob"]}}"# + "\r\n"
  static let large = #"{"return": ""# + String(repeating: "y", count: DrainFilter.longestHeld + 5000) + "\"}\r\n"

  /// The same message as a pretty monitor prints it.
  static func pretty(_ lines: String...) -> String { lines.joined(separator: "\r\n") + "\r\n" }
  static let prettyReply = pretty("{", #"    "return": {"#, #"        "error": {"#, "        }", "    }", "}")
  static let prettyFailure = pretty("{", #"    "error": {"#, #"        "class": "GenericError","#, #"        "desc": "{""#, "    }", "}")
  static let prettyEvent = pretty("{", #"    "timestamp": {"#, #"        "seconds": 1"#, "    },", #"    "event": "STOP""#, "}")
  static let prettyEnd = prettyFailure + pretty("{", #"    "id": "f00dfeedf00dfeed","#, #"    "error": {"#, "    }", "}")

  static let cases = [
    Case("a clean end leaves nothing", end, gives: ""),
    Case("a greeting comes first", greeting + end, gives: greeting),
    Case("replies are kept", reply + reply + end, gives: reply + reply),
    Case("no error line at all", reply + Lines.answer(nonce), gives: reply),
    Case("the client's own error right before the drain's is kept", failure + end, gives: failure),
    Case("several errors of the client's are kept", failure + failure + failure + end, gives: failure + failure + failure),
    Case("an error, then a reply", failure + reply + end, gives: failure + reply),
    Case("an event between the drain's two lines is kept", Lines.lexerError + event + Lines.answer(nonce), gives: event),
    Case("an event passes an error that is still held", failure + event + end, gives: event + failure),
    Case("an error reply with an id is a reply", failureWithID + end, gives: failureWithID),
    Case("an error, then one with an id", failure + failureWithID + end, gives: failure + failureWithID),
    Case("nothing behind the nonce passes", end + event + reply, gives: ""),
    Case("the rest of a line that was under way", after: #"{"return":"#, #" {}}"# + "\r\n" + end, gives: #" {}}"# + "\r\n"),
    Case(
      "the rest of a line, that looks like an error", after: #"{"return":"#, #"{"error": 1}}"# + "\r\n" + reply + end,
      gives: #"{"error": 1}}"# + "\r\n" + reply),
    Case("a rest that names the nonce ends nothing", after: #"{"return":"#, nonce + "\r\n" + reply + end, gives: nonce + "\r\n" + reply),
    Case("a large reply", large + end, gives: large),
    Case("an error, then a large reply", failure + large + end, gives: failure + large),
    Case("two large replies", large + reply + large + end, gives: large + reply + large),
    Case("pretty: a clean end leaves nothing", prettyEnd, gives: ""),
    Case("pretty: replies are kept", prettyReply + prettyReply + prettyEnd, gives: prettyReply + prettyReply),
    Case("pretty: the client's own error is kept", prettyFailure + prettyEnd, gives: prettyFailure),
    Case("pretty: an event is kept", prettyReply + prettyEvent + prettyEnd, gives: prettyReply + prettyEvent),
    Case(
      "pretty: the rest of a message that was under way", after: pretty("{", #"    "return": {"#), pretty("    }", "}") + prettyEnd,
      gives: pretty("    }", "}")),
    Case("an unfinished line is not given away", reply + #"{"error": "#, gives: reply),
  ]

  @Test("what the client is owed passes, whatever the chunks", arguments: cases)
  func passes(_ test: Case) {
    let isOver = test.input.contains(Self.nonce + #"", "error""#) || test.input.contains(Self.nonce + "\",\r\n")
    for chunks in chunkings(Array(test.input.utf8)) {
      var scanner = ReplyScanner()
      _ = Array(test.before.utf8).withUnsafeBytes { scanner.count(in: $0) }
      var filter = DrainFilter(nonce: Self.nonce, after: scanner)
      var output: [UInt8] = []
      for chunk in chunks { output += chunk.withUnsafeBytes { filter.filter($0) } }
      guard output == Array(test.output.utf8), filter.isDone == isOver else {
        Issue.record("cut at \(chunks[0].count): \(String(decoding: output.prefix(500), as: UTF8.self)), done: \(filter.isDone)")
        return
      }
    }
  }

  @Test("a line that is longer than what is held passes before it ends")
  func longLine() {
    var filter = DrainFilter(nonce: Self.nonce, after: ReplyScanner())
    let line = [UInt8](repeating: UInt8(ascii: "z"), count: DrainFilter.longestHeld)
    #expect(line.withUnsafeBytes { filter.filter($0) } == [])
    #expect([UInt8(ascii: "!")].withUnsafeBytes { filter.filter($0) } == line + [UInt8(ascii: "!")])
    #expect([UInt8(ascii: "?")].withUnsafeBytes { filter.filter($0) } == [UInt8(ascii: "?")])
  }

  @Test("the request is one byte that no JSON has, and the shortest command with the nonce")
  func request() {
    #expect(DrainFilter.request(nonce: "abc") == [0xFF] + Array(#"{"execute":"","id":"abc"}"#.utf8))
  }
}
