import TestSupport
import Testing

@testable import QMP

@Suite struct MessageSplitterTests {
  struct Case: CustomTestStringConvertible {
    let testDescription: String
    let input: String
    let messages: [String]
    var fault: MessageSplitter.Fault?

    init(_ what: String, _ input: String, gives messages: [String], then fault: MessageSplitter.Fault? = nil) {
      testDescription = what
      self.input = input
      self.messages = messages
      self.fault = fault
    }
  }

  static let limit = 1000
  static let pretty = "{\r\n    \"return\": {\r\n        \"a\": [\r\n            1,\r\n            2\r\n        ]\r\n    }\r\n}"

  static let cases = [
    Case("nothing", "", gives: []),
    Case("white space only", " \t\r\n\r\n", gives: []),
    Case("one line", #"{"return": {}}"# + "\r\n", gives: [#"{"return": {}}"#]),
    Case("no line end", #"{"return": {}}"#, gives: [#"{"return": {}}"#]),
    Case("several in a row", "{}{\"a\":1}{}\r\n{}", gives: ["{}", "{\"a\":1}", "{}", "{}"]),
    Case("pretty-printed", pretty + "\r\n" + pretty + "\r\n", gives: [pretty, pretty]),
    Case("brackets in strings", #"{"a": "}]{[", "b}": 1}{}"#, gives: [#"{"a": "}]{[", "b}": 1}"#, "{}"]),
    Case("quotes in strings", #"{"a": "\"}", "b": "\\"}{}"#, gives: [#"{"a": "\"}", "b": "\\"}"#, "{}"]),
    Case("a string of backslashes", #"{"a": "\\\\\"\\"} {}"#, gives: [#"{"a": "\\\\\"\\"}"#, "{}"]),
    Case("non-ASCII text", #"{"a": "äöü 🐚"}"# + "\n{}", gives: [#"{"a": "äöü 🐚"}"#, "{}"]),
    Case("unfinished", #"{} {"a": [{"#, gives: ["{}"]),
    Case("unfinished in a string", #"{} {"a": "}"#, gives: ["{}"]),
    Case("a word between messages", "{} what {}", gives: ["{}"], then: .notAnObject(UInt8(ascii: "w"))),
    Case("a number", "7", gives: [], then: .notAnObject(UInt8(ascii: "7"))),
    Case("a string", #""{}""#, gives: [], then: .notAnObject(UInt8(ascii: "\""))),
    Case("an array", "{}[{}]", gives: ["{}"], then: .notAnObject(UInt8(ascii: "["))),
    Case("a bracket that closes nothing", "{}}", gives: ["{}"], then: .notAnObject(UInt8(ascii: "}"))),
    Case("a NUL", "{}\0{}", gives: ["{}"], then: .notAnObject(0)),
    Case(
      "a message that does not end", #"{"a": ""# + String(repeating: "x", count: limit), gives: [],
      then: .tooLong(limit: limit, beginning: Array(#"{"a": ""#.utf8) + Array(repeating: UInt8(ascii: "x"), count: 57))),
    Case(
      "nesting that does not end", String(repeating: "{", count: limit + 1), gives: [],
      then: .tooLong(limit: limit, beginning: Array(repeating: UInt8(ascii: "{"), count: 64))),
    Case("much white space", String(repeating: " ", count: 3 * limit) + "{}", gives: ["{}"]),
    Case(
      "many messages, together longer than the limit", String(repeating: #"{"a": "b"}"#, count: 200),
      gives: Array(repeating: #"{"a": "b"}"#, count: 200)),
  ]

  @Test("messages are cut out, whatever the chunks", arguments: cases)
  func splits(_ test: Case) {
    for chunks in chunkings(Array(test.input.utf8)) {
      var splitter = MessageSplitter(limit: Self.limit)
      var messages: [String] = []
      var fault: MessageSplitter.Fault?
      do throws(MessageSplitter.Fault) {
        for chunk in chunks {
          chunk.withUnsafeBytes { splitter.append($0) }
          while let message = try splitter.next(Self.text) { messages.append(message) }
        }
      } catch {
        fault = error
      }
      guard messages == test.messages, fault == test.fault else {
        Issue.record("cut at \(chunks[0].count): \(messages), \(String(describing: fault))")
        return
      }
    }
  }

  @Test("a message as long as the limit is accepted")
  func atTheLimit() throws {
    var splitter = MessageSplitter(limit: 10)
    Array("{\"aaaaaa\"".utf8).withUnsafeBytes { splitter.append($0) }
    #expect(try splitter.next(Self.text) == nil)
    Array("}".utf8).withUnsafeBytes { splitter.append($0) }
    #expect(try splitter.next(Self.text) == "{\"aaaaaa\"}")
  }

  @Test("a message that is too long is passed over, whatever is in it, and what follows is understood")
  func resynchronizes() {
    let long = #"{"return": {"a": "}\n{\"b\": 1}"# + String(repeating: #"\n{\"c\": {}}"#, count: 200) + #"", "d": {}}}"#
    let pretty = "{\r\n    \"return\": [" + String(repeating: "\r\n        {\r\n        },", count: 200) + "\r\n        1\r\n    ]\r\n}"
    for message in [long, pretty] {
      for chunks in chunkings(Array(("{}\r\n" + message + "\r\n" + #"{"next": 1}"# + "\r\n{}").utf8)) {
        var splitter = MessageSplitter(limit: Self.limit)
        var found: [String] = []
        for chunk in chunks {
          chunk.withUnsafeBytes { splitter.append($0) }
          while true {
            do throws(MessageSplitter.Fault) {
              guard let text = try splitter.next(Self.text) else { break }
              // One that came as a whole was never too much to hold.
              if text.utf8.count < Self.limit { found.append(text) } else { found.append("too long") }
            } catch .tooLong(_, let beginning) {
              found.append("too long")
              #expect(beginning == Array(message.utf8.prefix(64)))
            } catch {
              Issue.record("\(error)")
              return
            }
          }
        }
        #expect(found == ["{}", "too long", #"{"next": 1}"#, "{}"], "cut at \(chunks[0].count)")
      }
    }
  }

  /// The message, which must have its NUL behind it.
  private static func text(_ bytes: UnsafeBufferPointer<UInt8>, _ depth: Int) -> String {
    bytes.last == 0 ? String(decoding: bytes.dropLast(), as: UTF8.self) : "not terminated"
  }

  @Test(
    "what is given up reaches to the next line that begins a message",
    arguments: [
      (#"{"a": "damaged}"#, #" }"# + "\r\n" + #"{"b": 1}"#, [#"{"b": 1}"#]),
      (#"{"a": {"#, "\r\n" + #"{"b": {}}"# + "\r\n{}", [#"{"b": {}}"#, "{}"]),
      (#"{"a": "#, "{\r\n    1\r\n}\r\n{\r\n    2\r\n}", ["{\r\n    2\r\n}"]), ("{}\r\n", #"{"b": 1}"#, ["{}", #"{"b": 1}"#]),
      (#"{"a": "#, "no line's end", []),
    ])
  func skipping(before: String, after: String, messages: [String]) throws {
    for chunks in chunkings(Array(after.utf8)) {
      var splitter = MessageSplitter(limit: 1000)
      var found: [String] = []
      func take() throws {
        while let text = try splitter.next({ text, _ in String(decoding: text.dropLast(), as: UTF8.self) }) { found.append(text) }
      }
      Array(before.utf8).withUnsafeBytes { splitter.append($0) }
      try take()
      splitter.skipUnfinished()
      for chunk in chunks {
        chunk.withUnsafeBytes { splitter.append($0) }
        try take()
      }
      #expect(found == messages, "cut at \(chunks[0].count)")
    }
  }
}
