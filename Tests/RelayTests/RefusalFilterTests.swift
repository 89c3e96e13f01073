import TestSupport
import Testing

@testable import Relay

@Suite struct RefusalFilterTests {
  private static let nonce = "abcdef"
  private static func answer(_ number: Int) -> String {
    #"{"id": "abcdef-\#(number)", "error": {"class": "CommandNotFound", "desc": "The command  has not been found"}}"# + "\r\n"
  }

  @Test("a placeholder is a command of ours, each with an id of its own")
  func placeholders() {
    var filter = RefusalFilter(nonce: Self.nonce)
    #expect(filter.placeholder(for: []) == Array(#"{"execute":"","id":"abcdef-1"}"#.utf8))
    #expect(filter.placeholder(for: []) == Array(#"{"execute":"","id":"abcdef-2"}"#.utf8))
  }

  @Test("refusals stand where the placeholders' answers came, and all else passes, whatever the chunks")
  func replacement() {
    let reply = #"{"return": {}}"# + "\r\n"
    let long = #"{"return": ""# + String(repeating: "x", count: 600) + "abcdef-1\"}\r\n"
    let input = reply + Self.answer(1) + long + reply + Self.answer(2) + Self.answer(3) + reply
    for chunks in chunkings(Array(input.utf8)) {
      var filter = RefusalFilter(nonce: Self.nonce)
      _ = filter.placeholder(for: Array("no\r\n".utf8))
      _ = filter.placeholder(for: Array("never\r\n".utf8))
      var output: [UInt8] = []
      for chunk in chunks { output += chunk.withUnsafeBytes { filter.filter($0) } }
      let expected = reply + "no\r\n" + long + reply + "never\r\n" + Self.answer(3) + reply
      #expect(String(decoding: output, as: UTF8.self) == expected, "cut at \(chunks[0].count)")
    }
  }

  @Test("while nothing is refused, bytes pass as they come")
  func nothingRefused() {
    var filter = RefusalFilter(nonce: Self.nonce)
    #expect(Array("{\"retu".utf8).withUnsafeBytes { filter.filter($0) } == Array("{\"retu".utf8))
  }
}
