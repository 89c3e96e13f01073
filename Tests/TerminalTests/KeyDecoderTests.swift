import Terminal
import TestSupport
import Testing

@Suite("keys from bytes")
struct KeyDecoderTests {
  private static func keys(_ bytes: some Sequence<UInt8>) -> [Key] {
    var decoder = KeyDecoder()
    var keys: [Key] = []
    for byte in bytes { decoder.feed(byte, into: &keys) }
    decoder.flush(into: &keys)
    return keys
  }

  @Test(
    "each sequence is a key, also when another stands right behind it",
    arguments: [
      ("a", [.text("a")]), ("é日😀", [.text("é"), .text("日"), .text("😀")]),
      ("\r", [.enter]), ("\n", [.enter]), ("\t", [.tab]), ("\u{7F}", [.backspace]), ("\u{8}", [.backspace]),
      ("\u{1}\u{3}\u{4}\u{12}\u{1A}", [.control("a"), .control("c"), .control("d"), .control("r"), .control("z")]),
      ("\u{0}\u{1F}", [.control("@"), .control("_")]),
      ("\u{1B}[A\u{1B}[B\u{1B}[C\u{1B}[D", [.up, .down, .right, .left]), ("\u{1B}OA\u{1B}OH", [.up, .home]),
      ("\u{1B}[H\u{1B}[F\u{1B}[1~\u{1B}[4~\u{1B}[7~\u{1B}[8~", [.home, .end, .home, .end, .home, .end]),
      ("\u{1B}[3~\u{1B}[5~\u{1B}[6~\u{1B}[Z", [.delete, .pageUp, .pageDown, .backTab]),
      ("\u{1B}[1;5C\u{1B}[1;3D\u{1B}[1;2C\u{1B}[3;5~", [.wordRight, .wordLeft, .right, .alt("d")]),
      ("\u{1B}b\u{1B}f\u{1B}\u{7F}", [.alt("b"), .alt("f"), .alt("\u{7F}")]),
      ("\u{1B}", [.escape]), ("\u{1B}\u{1B}", [.escape, .escape]), ("\u{1B}\u{1B}[A", [.escape, .up]),
      ("\u{1B}\ra", [.escape, .enter, .text("a")]),
      ("\u{1B}[", [.unknown]), ("\u{1B}[15~x\u{1B}[?1;2cx", [.unknown, .text("x"), .unknown, .text("x")]),
      ("\u{1B}[1\u{1B}[A", [.unknown, .up]), ("\u{1B}[999999999999999999999~", [.unknown]),
      ("\u{1B}[200~two\rlines\u{1B}[A\u{1B}[201~x", [.paste("two\rlines\u{1B}[A"), .text("x")]),
      ("\u{1B}[200~\u{1B}[201\u{1B}[201~", [.paste("\u{1B}[201")]), ("\u{1B}[200~\u{1B}[201~", [.paste("")]),
    ] as [(String, [Key])])
  func sequences(text: String, expected: [Key]) {
    #expect(Self.keys(text.utf8) == expected)
    #expect(Self.keys(Array(text.utf8) + Array(text.utf8)).prefix(expected.count - 1) == expected.dropLast())
  }

  @Test(
    "what is not UTF-8 is a replacement character, and takes nothing with it",
    arguments: [
      ([0x80], "\u{FFFD}"), ([0xC3, 0x41], "\u{FFFD}A"), ([0xE6, 0x97, 0xC3, 0xA9], "\u{FFFD}é"), ([0xFF, 0x41], "\u{FFFD}A"),
      // Overlong, and a surrogate.
      ([0xE0, 0x80, 0x80, 0x41], "\u{FFFD}A"), ([0xED, 0xA0, 0x80, 0x41], "\u{FFFD}A"), ([0xF4, 0x90, 0x80, 0x80], "\u{FFFD}"),
    ] as [([UInt8], String)])
  func invalid(bytes: [UInt8], expected: String) {
    #expect(Self.keys(bytes) == expected.unicodeScalars.map { .text($0) })
  }

  @Test("a long paste is cut, and ends nevertheless")
  func longPaste() {
    for length in [KeyDecoder.longestPaste, KeyDecoder.longestPaste + 1, KeyDecoder.longestPaste + 1000] {
      let pasted = [UInt8](repeating: UInt8(ascii: "x"), count: length)
      let keys = Self.keys(Array("\u{1B}[200~".utf8) + pasted + Array("\u{1B}[201~y".utf8))
      // Not #expect, which would print a megabyte.
      let isRight = keys == [.paste(String(repeating: "x", count: min(length, KeyDecoder.longestPaste))), .text("y")]
      #expect(isRight, "\(length)")
    }
  }

  @Test("any bytes are some keys, and a letter behind the longest sequence is a letter", arguments: 0..<50 as Range<UInt64>)
  func anything(seed: UInt64) {
    var random = SplitMix(seed: seed)
    let bytes = (0..<2000).map { _ in UInt8.random(in: 0...255, using: &random) }.filter { $0 != UInt8(ascii: "~") }
    let ending = [UInt8](repeating: UInt8(ascii: "0"), count: 100) + Array("zz".utf8)
    #expect(Self.keys(bytes + ending).last == .text("z"))
  }
}
