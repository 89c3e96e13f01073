import Logging
import Testing

@testable import qmp_varlinkd

@Suite struct LogHandlerTests {
  @Test(
    "what would control a terminal is taken out of a line, and nothing else",
    arguments: [
      ("plain", "plain"), ("", ""), ("ä 🐚 ж", "ä 🐚 ж"), ("two\nlines", "two\nlines"), ("\u{1B}[31mred", "\u{FFFD}[31mred"),
      ("bell\u{7}", "bell\u{FFFD}"), ("a\rb", "a\u{FFFD}b"), ("a\r\nb", "a\u{FFFD}\nb"), ("tab\t", "tab\u{FFFD}"),
      ("\u{9B}1m", "\u{FFFD}1m"),
      ("\u{7F}", "\u{FFFD}"), ("\0", "\u{FFFD}"),
    ])
  func printable(text: String, expected: String) {
    #expect(Array(LineLogHandler.printable(text).unicodeScalars) == Array(expected.unicodeScalars))
  }

  @Test(
    "a key is a field's name as the journal takes it",
    arguments: [
      ("session", "SESSION"), ("session-id", "SESSION_ID"), ("a.b c", "A_B_C"), ("x1", "X1"), ("ü", "_"), ("", ""), ("A=B\n", "A_B_"),
    ])
  func fieldName(key: String, name: String) {
    #expect(JournalLogHandler.fieldName(key) == name)
  }

  @Test("levels are syslog's")
  func priorities() {
    #expect(Logger.Level.allCases.map(\.syslogPriority) == [7, 7, 6, 5, 4, 3, 2])
  }

  @Test("metadata is kept by both handlers")
  func metadata() {
    var handlers: [any LogHandler] = [LineLogHandler(logLevel: .info, onTerminal: false), JournalLogHandler(logLevel: .info)]
    for index in handlers.indices {
      #expect(handlers[index][metadataKey: "session"] == nil)
      handlers[index][metadataKey: "session"] = "qv-1"
      #expect(handlers[index][metadataKey: "session"] == "qv-1")
      #expect(handlers[index].metadata == ["session": "qv-1"])
    }
  }
}
