import TestSupport
import Testing

@testable import Relay

@Suite struct DrainFilterTests {
  struct Case: CustomTestStringConvertible {
    let testDescription: String
    var midLine = false
    let input: String
    let output: String

    init(_ what: String, midLine: Bool = false, _ input: String, gives output: String) {
      testDescription = what
      self.midLine = midLine
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
    Case("the rest of a line that was under way", midLine: true, #" {}}"# + "\r\n" + end, gives: #" {}}"# + "\r\n"),
    Case(
      "the rest of a line, that looks like an error", midLine: true, #"{"error": 1}}"# + "\r\n" + reply + end,
      gives: #"{"error": 1}}"# + "\r\n" + reply),
    Case("a rest that names the nonce ends nothing", midLine: true, nonce + "\r\n" + reply + end, gives: nonce + "\r\n" + reply),
    Case("a large reply", large + end, gives: large),
    Case("an error, then a large reply", failure + large + end, gives: failure + large),
    Case("two large replies", large + reply + large + end, gives: large + reply + large),
    Case("an unfinished line is not given away", reply + #"{"error": "#, gives: reply),
  ]

  @Test("what the client is owed passes, whatever the chunks", arguments: cases)
  func passes(_ test: Case) {
    let isOver = test.input.contains(Self.nonce + #"", "error""#)
    for chunks in chunkings(Array(test.input.utf8)) {
      var filter = DrainFilter(nonce: Self.nonce, midLine: test.midLine)
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
    var filter = DrainFilter(nonce: Self.nonce, midLine: false)
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
