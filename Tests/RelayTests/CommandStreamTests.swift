import Testing

@testable import Relay

@Suite("what is taken out of a client's input, and what is not")
struct CommandStreamTests {
  /// Feeds `text` in chunks of `size` bytes; gives what is forwarded, and how many whole commands were seen.
  private func forwarded(_ text: [UInt8], chunks size: Int) -> (bytes: [UInt8], commands: Int, stream: CommandStream) {
    var stream = CommandStream()
    var bytes: [UInt8] = []
    var commands = 0
    for start in stride(from: 0, to: text.count, by: size) {
      Array(text[start..<min(start + size, text.count)]).withUnsafeBytes { chunk in
        stream.consume(chunk) { piece in
          switch piece {
          case .command(let command):
            bytes += command
            commands += 1
          case .raw(let raw): bytes += raw
          }
        }
      }
    }
    return (bytes, commands, stream)
  }

  private func check(_ input: String, _ expected: String, commands: Int, sourceLocation: SourceLocation = #_sourceLocation) {
    for size in 1...max(1, input.utf8.count) {
      let result = forwarded(Array(input.utf8), chunks: size)
      #expect(String(decoding: result.bytes, as: UTF8.self) == expected, "in chunks of \(size)", sourceLocation: sourceLocation)
      #expect(result.commands == commands, "in chunks of \(size)", sourceLocation: sourceLocation)
    }
  }

  @Test(
    "white space outside strings goes, whatever the chunks",
    arguments: [
      (#"{"execute": "query-status"}"# + "\r\n", #"{"execute":"query-status"}"#, 1),
      (#"{"execute":"a"}{"execute":"b"}"#, #"{"execute":"a"}{"execute":"b"}"#, 2),
      (
        " \n\t{ \"execute\" :\r\n \"a\" , \"id\" : [ 1 , -2.5e+3 , true , false, null , { } , [ ] ] }  ",
        #"{"execute":"a","id":[1,-2.5e+3,true,false,null,{},[]]}"#, 1
      ),
      (#"{"a": " two  blanks \" \\ and a { "}"#, #"{"a":" two  blanks \" \\ and a { "}"#, 1),
      (#"{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}"#, #"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#, 1),
      (#"{"a": 0, "b": -0, "c": 0.5}"#, #"{"a":0,"b":-0,"c":0.5}"#, 1),
    ])
  func compaction(input: String, expected: String, commands: Int) {
    check(input, expected, commands: commands)
  }

  @Test("an unfinished command is held back", arguments: [#"{"execute": "query-ver"#, #"{"a": ["#, "{", #"{"a": tru"#, #"{"a": 1"#])
  func unfinished(input: String) {
    check(input, "", commands: 0)
    check(#"{"execute": "a"} "# + input, #"{"execute":"a"}"#, commands: 1)
  }

  @Test(
    "malformed input is forwarded as it came, in its place, and so is all behind it",
    arguments: [
      "{]", "nonsense ", "'a'", #"{"a" 1}"#, #"{"a": 1 "b": 2}"#, #"{"a": 01}"#, #"{"a": +1}"#, #"{"a": 1e}"#, #"{"a": .5}"#,
      #"{"a": nul}"#,
      #"{"a": "\q"}"#, #"{"a": "\u12g4"}"#, "{\"a\": \"\u{1}\"}", #"{"a": 1, "a": 2}"#, #"{"a": [1, ]}"#, #"{"a": 1, }"#, #"{1: 2}"#, "}",
      "]", "12", #""a""#, "[1]", "@",
      #"{"a": 0e1}"#,
    ])
  func malformed(input: String) {
    let tail = #" {"execute": "a"} "# + "\n"
    check(input + tail, input + tail, commands: 0)
  }

  @Test(
    "white space taken out before malformed input is put back, for line and column to be right",
    arguments: [
      ("{ \"execute\": \"a\" }\n\n  ", "{\"execute\":\"a\"}\n\n  "),
      ("{ \"execute\": \"a\" } ", "{\"execute\":\"a\"}    "),
      ("{ \"execute\":\n\"a\" }", "{\"execute\":\"a\"}\n     "),
      ("\r\n{\"a\":1}", "{\"a\":1}\n       "),
    ])
  func alignment(before: String, expected: String) {
    let malformed = "{ \"b\" : ]"
    check(before + malformed, expected + malformed, commands: 1)
    // Both texts are at the same place there, as QEMU counts.
    var written = TextPosition()
    var forwarded = TextPosition()
    written.advance(over: before.utf8)
    forwarded.advance(over: expected.utf8)
    #expect(written == forwarded)
  }

  @Test(
    "what QEMU may find fault with is forwarded as it came, in its place, and no more than that",
    arguments: [
      "{\"a\": \"\u{E9}\"}", #"{"a": "\u0041"}"#, #"{"\"": 1}"#,
      "{" + (0..<70).map { "\"\($0)\": 1" }.joined(separator: ", ") + "}",
    ])
  func doubtful(input: String) {
    let blank = #"{ "a": 1 }"#
    let bytes = Array((blank + input + blank).utf8)
    for size in [1, 2, 7, bytes.count] {
      let result = forwarded(bytes, chunks: size)
      #expect(String(decoding: result.bytes, as: UTF8.self) == "{\"a\":1}   \(input){\"a\":1}")
      #expect(result.commands == 3)
    }
  }

  @Test("a long command is forwarded as it comes, and compaction goes on behind it")
  func longCommand() {
    let long = #"{"a": ""# + String(repeating: "x", count: 3 * CommandStream.longestHeld) + #"", "b": 1}"#
    let bytes = Array((#"{ "a": 1 }"# + long + #"{ "c": 1 }"#).utf8)
    for size in [1000, 16384] {
      let result = forwarded(bytes, chunks: size)
      // Not with #expect, which would print it all.
      let text = String(decoding: result.bytes, as: UTF8.self)
      let isRight = text == "{\"a\":1}   \(long){\"c\":1}"
      #expect(isRight, "in chunks of \(size)")
      #expect(!result.stream.isRaw && !result.stream.isAmidCommand)
    }
  }

  @Test("nesting is bounded")
  func nesting() {
    let legal = Array((#"{"a":"# + String(repeating: "[", count: 1022) + String(repeating: "]", count: 1022) + "}").utf8)
    #expect(forwarded(legal, chunks: 100).commands == 1)
    let deep = Array((#"{"a":"# + String(repeating: "[", count: 100_000)).utf8)
    let result = forwarded(deep, chunks: 4096)
    #expect(result.stream.isRaw)
    #expect(result.bytes == deep)
  }
}
