import TestSupport
import Testing

@testable import Relay

@Suite struct ReplyScannerTests {
  @Test("replies are counted, events and greetings are not, whatever the chunks")
  func counting() {
    let input =
      #"{"QMP": {"version": {}}}"# + "\r\n" + #"{"return": {}}"# + "\r\n" + #"{"timestamp": {}, "event": "STOP"}"# + "\r\n"
      + #"{"id": 1, "error": {}}"# + "\r\n" + #"{"error": {}}"# + "\r\n" + #"{"return": "#
    for chunks in chunkings(Array(input.utf8)) {
      var scanner = ReplyScanner()
      let count = chunks.reduce(0) { $0 + $1.withUnsafeBytes { scanner.count(in: $0) } }
      #expect(count == 4, "cut at \(chunks[0].count)")
      #expect(scanner.isMidMessage)
    }
  }

  @Test(
    "the middle of a message is known",
    arguments: [
      ("", false), ("{", true), ("{}\r", true), ("{}\r\n", false), ("{}\r\n{", true),
      ("{\r\n", true), ("{\r\n    \"return\": {\r\n    }\r\n", true), ("{\r\n    \"return\": {\r\n    }\r\n}\r\n", false),
    ])
  func midMessage(text: String, isMidMessage: Bool) {
    var scanner = ReplyScanner()
    for byte in text.utf8 { _ = [byte].withUnsafeBytes { scanner.count(in: $0) } }
    #expect(scanner.isMidMessage == isMidMessage)
  }

  @Test("replies of a pretty monitor are counted too, whatever the chunks")
  func pretty() {
    let messages = [
      #"{|"QMP": {|}}"#, #"{|"return": {|"timestamp": 1}}"#, #"{|"timestamp": {|}}"#, #"{|"id": 1,|"error": {|}}"#,
    ]
    let input = messages.map { $0.replacing("|", with: "\r\n    ").dropLast() + "\r\n}\r\n" }.joined()
    for chunks in chunkings(Array(input.utf8)) {
      var scanner = ReplyScanner()
      let count = chunks.reduce(0) { $0 + $1.withUnsafeBytes { scanner.count(in: $0) } }
      #expect(count == 2, "cut at \(chunks[0].count)")
      #expect(!scanner.isMidMessage && scanner.isNegotiated)
    }
  }

  @Test(
    "a command that succeeded shows that capabilities are negotiated, and nothing else does",
    arguments: [
      ([#"{"QMP": {}}"#, #"{"error": {}}"#, #"{"id": 1, "error": {}}"#], false), ([#"{"QMP": {}}"#, #"{"return": {}}"#], true),
      ([#"{"QMP": {}}"#, #"{"return": {}, "id": "return"}"#], true),
    ])
  func negotiated(messages: [String], isNegotiated: Bool) {
    var scanner = ReplyScanner()
    for message in messages { _ = Array((message + "\r\n").utf8).withUnsafeBytes { scanner.count(in: $0) } }
    #expect(scanner.isNegotiated == isNegotiated)
  }
}
