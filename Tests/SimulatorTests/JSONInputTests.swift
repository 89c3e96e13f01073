@testable import QEMUJSON
import TestSupport
import Testing

@testable import Simulator

/// The expected complaints are QEMU 11.1.2's, word for word.
@Suite("QEMU's JSON") struct JSONInputTests {
  struct Case: CustomTestStringConvertible {
    let testDescription: String
    let input: [UInt8]
    let outcomes: [String]

    init(_ input: String, _ outcomes: String...) { self.init(Array(input.utf8), outcomes) }
    init(_ input: [UInt8], _ outcomes: [String]) {
      testDescription = String(decoding: input.prefix(60), as: UTF8.self)
      self.input = input
      self.outcomes = outcomes
    }
  }

  static let cases = [
    Case(""), Case(" \t\r\n"), Case("{}", "{}"), Case(#"{"a":1}{"b":[]}"#, #"{"a": 1}"#, #"{"b": []}"#), Case(#"{"a": {"b": ["#),
    Case("{]", "1:2: JSON parse error, expecting key"),
    Case("{\u{1}", "1:2: JSON parse error, stray '\u{1}'"),
    Case("{'execute': 'nonexistent', 'id':'\n'", "1:33: JSON parse error, stray ''\n'"),
    Case(#"{"execute": %p}"#, "1:13: JSON parse error, stray '%'", "1:16: JSON parse error, expecting value"),
    Case("null ", "null"), Case("12 ", "12"), Case("12{}", "12", "{}"),
    Case("nonsense ", "1:1: JSON parse error, invalid keyword 'nonsense'"),
    Case(
      "garbage\n\n  garbage ", "1:1: JSON parse error, invalid keyword 'garbage'", "3:3: JSON parse error, invalid keyword 'garbage'"),
    Case("{ \"a\" : \n\n [ }", "3:4: JSON parse error, expecting value"),
    Case("@abc {}", "1:1: JSON parse error, stray '@'", "{}"), Case("@abc\n1 ", "1:1: JSON parse error, stray '@'", "1"),
    Case("1a ", "1", "1:3: JSON parse error, invalid keyword 'a'"),
    Case("01 ", "1:1: JSON parse error, stray '01'"), Case("-x", "1:1: JSON parse error, stray '-x'"),
    Case("1.5ex", "1:1: JSON parse error, stray '1.5ex'"),
    Case("{,}", "1:2: JSON parse error, expecting key"), Case(#"{"a"}"#, "1:5: JSON parse error, expecting ':'"),
    Case(#"{"a":1,}"#, "1:8: JSON parse error, expecting key"), Case("[1 2]", "1:4: JSON parse error, expected ',' or ']'"),
    Case(#"{"a":1 "b":2}"#, "1:8: JSON parse error, expected ',' or '}'"), Case("}", "1:1: JSON parse error, expecting value"),
    Case("[}]", "1:2: JSON parse error, expecting value", "1:3: JSON parse error, expecting value"),
    Case(#"{"a":1,"a":2}"#, "1:12: JSON parse error, duplicate key"),
    // Two names, which Unicode takes for the same.
    Case(#"{"\u00e9":1,"e\u0301":2}"#, #"{"\u00E9": 1, "e\u0301": 2}"#),
    Case("'single \"quotes\" \\''", #""single \"quotes\" '""#),
    Case(#""\u00e9\n\"\\\u0000\ud83d\ude00\/""#, #""\u00E9\n\"\\\u0000\uD83D\uDE00/""#),
    Case(#""\q""#, "1:1: JSON parse error, invalid escape sequence in string"),
    Case(#""\ud800x""#, #"1:1: JSON parse error, \ud800 is not a valid Unicode character"#),
    Case(#""\u12""#, #"1:1: JSON parse error, \u12" is not a valid Unicode character"#),
    Case(#""\uffff""#, #"1:1: JSON parse error, \uffff is not a valid Unicode character"#),
    Case([UInt8(ascii: "{"), 0xFF] + Array("{}".utf8), ["1:2: JSON parse error, stray '\u{FFFD}'", "{}"]),
    Case([0xFF, 0xFF], ["1:1: JSON parse error, stray '\u{FFFD}'", "1:3: JSON parse error, stray '\u{FFFD}'"]),
    Case([0xEF, 0xBB, 0xBF], ["1:1: JSON parse error, stray '\u{FFFD}'"]), Case([0], ["1:1: JSON parse error, stray ''"]),
    Case([0x22, 0xC3, 0x28, 0x22], ["1:1: JSON parse error, invalid UTF-8 sequence in string"]),
    Case([0x22, 0xED, 0xA0, 0x80, 0x22], ["1:1: JSON parse error, invalid UTF-8 sequence in string"]),
    Case([0x22, 0xC0, 0x80, 0x22], [#""\u0000""#]),
    Case("[-0, -0.0, 1.0, 0.1, 1e300, 1e400]", "[0, -0, 1, 0.10000000000000001, 1.0000000000000001e+300, inf]"),
    Case("[9223372036854775808, 18446744073709551616]", "[9223372036854775808, 1.8446744073709552e+19]"),
    Case(#"{"z":1,"b": 1, "a": {}, "cc":2,"q":[]}"#, #"{"cc": 2, "a": {}, "b": 1, "z": 1, "q": []}"#),
    Case(
      String(repeating: "[", count: 1024) + String(repeating: "]", count: 1024),
      String(repeating: "[", count: 1024) + String(repeating: "]", count: 1024)),
    Case(String(repeating: "[", count: 1025) + String(repeating: "]", count: 1025) + "{}", "JSON nesting depth limit exceeded", "{}"),
    Case("\"" + String(repeating: "a", count: 2000) + "\u{1}", "1:1: JSON parse error, stray '\"" + String(repeating: "a", count: 1015)),
  ]

  @Test("bytes in, values and complaints out, whatever the chunks", arguments: cases)
  func outcomes(_ test: Case) {
    for chunks in test.input.count > 100 ? [[test.input[...]]] : chunkings(test.input) {
      var input = JSONInput()
      var outcomes: [JSONInput.Outcome] = []
      for byte in chunks.joined() { input.feed(byte, into: &outcomes) }
      let texts = outcomes.map { outcome in
        switch outcome {
        case .value(let value): value.text
        case .malformed(let reason): reason
        }
      }
      #expect(texts == test.outcomes)
    }
  }

  /// What QEMU 7.2 said of these, on a monitor of its own; it told no places.
  private static let wholeCases: [(String, [String])] = [
    ("{]", ["expecting value"]), ("{,}", ["expecting value"]), (#"{"a":1,}"#, ["expecting value"]), ("[1,]", ["expecting value"]),
    (#"{"a"}"#, ["missing : in object pair"]), (#"{"a" 1}"#, ["missing : in object pair"]), ("{1:2}", ["key is not a string in object"]),
    ("[1 2]", ["expected separator in list"]), (#"{"a":1 "b":2}"#, ["expected separator in dict"]),
    (#"{"a":1,"a":2}"#, ["duplicate key"]),
    (#"{"\u00e9":1,"e\u0301":2}"#, [#"{"\u00E9": 1, "e\u0301": 2}"#]), ("{nope:1}", ["invalid keyword 'nope'"]),
    // Nothing is said before the brackets are balanced, and what follows a complaint begins anew.
    ("[ } ]", ["expecting value", "expecting value"]), ("{]}", ["expecting value", "expecting value"]),
    ("{ @ }", ["stray '@'", "expecting value"]), (#"{"a":[}"#, []),
    (
      String(repeating: "[", count: 1025) + "]]",
      ["JSON nesting depth limit exceeded", "expecting value", "expecting value"]
    ), ("\"" + String(repeating: "a", count: 2000) + "\u{1}", ["stray '\"" + String(repeating: "a", count: 2000) + "\u{1}'"]),
    (#" { "a" : [ 1 , { } ] } "#, [#"{"a": [1, {}]}"#]),
  ]

  @Test("the same as an older QEMU: values are put together at their end, with other words", arguments: wholeCases)
  func whole(text: String, expected: [String]) {
    for chunks in text.utf8.count > 100 ? [[Array(text.utf8)[...]]] : chunkings(Array(text.utf8)) {
      var input = JSONInput(assembly: .whole)
      var outcomes: [JSONInput.Outcome] = []
      for byte in chunks.joined() { input.feed(byte, into: &outcomes) }
      let texts = outcomes.map { outcome in
        switch outcome {
        case .value(let value): value.text
        case .malformed(let reason): reason.replacing(#/^\d+:\d+: JSON parse error, /#, with: "")
        }
      }
      #expect(texts == expected)
    }
  }

  @Test(
    "the text of a command without its white space, and a limit that white space does not count for",
    arguments: [JSONInput.Assembly.incremental, .whole])
  func compactText(assembly: JSONInput.Assembly) {
    var input = JSONInput(ownLimits: .init(bytes: 17, tokens: 100), assembly: assembly, keeping: .compact)
    var outcomes: [JSONInput.Outcome] = []
    for byte in Array(#" @x {"a" :    'b c',        "d":1} "#.utf8) { input.feed(byte, into: &outcomes) }
    #expect(outcomes.count == 2)
    #expect(String(decoding: input.lastText, as: UTF8.self) == #"{"a":'b c',"d":1}"#)
    outcomes = []
    for byte in Array(#"{"a":"0123456789abcdef"} {}"#.utf8) { input.feed(byte, into: &outcomes) }
    #expect(outcomes == [.malformed("JSON token size limit exceeded"), .value([:])])
  }

  @Test(
    "what is longer than a limit of ours is refused once and passed over to its end, whatever is in it",
    arguments: [JSONInput.Assembly.incremental, .whole])
  func passedOver(assembly: JSONInput.Assembly) {
    let hostile = #"{\"execute\":\"quit\"}"# + "{'execute':'quit'}]}{["
    let padding = String(repeating: "x", count: 100)
    let numbers = String(repeating: "1,", count: 60)
    let inputs = [
      // The limit lies before, within and behind what must not be taken for a command; in a string, an escape, a list.
      (#"{"id":"\#(hostile)\#(padding)"}"#, "size"), (#"{"id":"\#(padding)\#(hostile)"}"#, "size"),
      (#"{"id":"\#(padding)\\","b":"\#(hostile)"}"#, "size"), ("{'id':'\(padding)\(hostile.replacing("'", with: #"\'"#))'}", "size"),
      (#"{"a":["\#(padding)",{"execute":"quit"}],"b":{"execute":"quit"}}"#, "size"),
      (#"{"a":[\#(numbers){"execute":"quit"}],"b":{"execute":"quit"}}"#, "count"),
      (#"{"a":{"b":[\#(numbers)"\#(hostile)"]}}"#, "count"), (#""\#(padding)\#(hostile)" "#, "size"),
      (#"{"a":\#(String(repeating: "1", count: 200)),"b":{"execute":"quit"}}"#, "size"),
    ]
    for (text, which) in inputs {
      for chunks in chunkings(Array((text + #"{"next":1}"#).utf8)).prefix(2) {
        var input = JSONInput(ownLimits: .init(bytes: 99, tokens: 30), assembly: assembly, keeping: .compact)
        var outcomes: [JSONInput.Outcome] = []
        for byte in chunks.joined() { input.feed(byte, into: &outcomes) }
        #expect(outcomes == [.malformed("JSON token \(which) limit exceeded"), .value(["next": 1])], "\(text)")
        #expect(String(decoding: input.lastText, as: UTF8.self) == #"{"next":1}"#)
      }
    }
    // An error in it is where QEMU begins anew, and what a session's end depends on.
    var input = JSONInput(ownLimits: .init(bytes: 99, tokens: 30), assembly: assembly, keeping: .compact)
    var outcomes: [JSONInput.Outcome] = []
    for byte in Array(#"{"id":"\#(padding)"#.utf8) + [0xFF] + Array(#"{"next":1}"#.utf8) { input.feed(byte, into: &outcomes) }
    #expect(outcomes.last == .value(["next": 1]))
  }

  @Test("tokens keep no more memory than they need, after a long one too")
  func tokenMemory() {
    var input = JSONInput(assembly: .whole)
    var outcomes: [JSONInput.Outcome] = []
    let text = #"{"a":""# + String(repeating: "x", count: 60000) + #"","b":["# + String(repeating: "1,", count: 2000)
    for byte in text.utf8 { input.feed(byte, into: &outcomes) }
    #expect(input.collected.count > 4000)
    let capacity = input.collected.reduce(0) { $0 + $1.bytes.capacity }
    #expect(capacity < 60000 * 4 + 4010 * 64, "\(capacity)")
  }

  @Test("the text of a command is kept as it came")
  func text() {
    var input = JSONInput()
    var outcomes: [JSONInput.Outcome] = []
    for byte in Array(" @x {\"a\" : 'b'}  {\n}".utf8) {
      input.feed(byte, into: &outcomes)
      if outcomes.count == 2 { break }
    }
    #expect(String(decoding: input.lastText, as: UTF8.self) == "{\"a\" : 'b'}")
  }

  @Test("printed over several lines, an empty list has two")
  func pretty() throws {
    let value = try QObject(parsing: #"{"a": [1, {"b": []}], "b": {}}"#)
    let lines = [
      "{", "    \"a\": [", "        1,", "        {", "            \"b\": [", "            ]", "        }", "    ],", "    \"b\": {",
      "    }", "}",
    ]
    #expect(String(decoding: value.encoded(pretty: true), as: UTF8.self) == lines.joined(separator: "\n"))
  }

  @Test("a text is one value", arguments: ["", "{", "{} {}", "{]", "nope"])
  func parsing(text: String) { #expect(throws: InvalidJSON.self) { try QObject(parsing: text) } }
}
