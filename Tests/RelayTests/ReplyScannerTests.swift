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
      #expect(scanner.isMidLine)
    }
  }

  @Test(
    "the middle of a line is known", arguments: [("", false), ("{", true), ("{}\r", true), ("{}\r\n", false), ("{}\r\n{", true)])
  func midLine(text: String, isMidLine: Bool) {
    var scanner = ReplyScanner()
    for byte in text.utf8 { _ = [byte].withUnsafeBytes { scanner.count(in: $0) } }
    #expect(scanner.isMidLine == isMidLine)
  }
}
