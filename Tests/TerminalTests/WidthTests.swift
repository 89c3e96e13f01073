import Terminal
import TestSupport
import Testing

@Suite("the width of text")
struct WidthTests {
  @Test(
    "columns",
    arguments: [
      ("", 0), ("abc", 3), ("é", 1), ("e\u{301}", 1), ("日本語", 6), ("한글", 4), ("ｆｕｌｌ", 8), ("ｱ", 1), ("😀", 2), ("→", 1), ("☕", 2), ("☀", 1),
      ("🇩🇪", 2),
      ("𠀀", 2), ("ё", 1), ("\u{5D0}", 1),
    ])
  func columns(text: String, width: Int) {
    #expect(text.terminalWidth == width)
  }

  @Test("every character is as wide as Python's copy of Unicode has it")
  func likePython() async throws {
    // Of each code point one letter: Wide, Narrow, or unassigned, of which there are others in another year's Unicode.
    let program = """
      import unicodedata as u
      print(''.join('-' if u.category(c) == 'Cn' else 'W' if u.east_asian_width(c) in 'WF' else 'N' for c in map(chr, range(0x40000))))
      """
    let letters = Array(try await command("python3", ["-c", program]).output.utf8)
    try #require(letters.count == 0x40001)
    var wide = 0
    for scalar in (0x20..<0x40000 as Range<UInt32>).compactMap(Unicode.Scalar.init) {
      guard scalar.properties.generalCategory != .unassigned, letters[Int(scalar.value)] != UInt8(ascii: "-") else { continue }
      guard scalar.terminalWidth > 0, "\(scalar)".escapedForTerminal.unicodeScalars.count == 1 else { continue }
      let isWide = letters[Int(scalar.value)] == UInt8(ascii: "W")
      if (scalar.terminalWidth == 2) != isWide { Issue.record("U+\(String(scalar.value, radix: 16))") }
      wide += isWide ? 1 : 0
    }
    #expect(wide > 100_000)
  }

  @Test(
    "fitted into columns",
    arguments: [
      ("abc", 5, "abc  "), ("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 4, "日… "), ("日本語", 5, "日本…"), ("abc", 1, "…"), ("abc", 0, ""),
      ("", 2, "  "),
    ])
  func fitted(text: String, width: Int, expected: String) {
    #expect(text.fitted(to: width) == expected)
    #expect(text.fitted(to: width).terminalWidth == width)
  }

  @Test("texts in columns")
  func inColumnsOfText() {
    #expect(inColumns(["a", "bb", "c", "d"], width: 8) == "a   c\nbb  d")
    #expect(inColumns(["a", "bb", "c"], width: 80) == "a   bb  c")
    #expect(inColumns(["long one", "long two"], width: 5) == "long one\nlong two")
    #expect(inColumns([], width: 5) == "")
    #expect(inColumns(["\u{1B}[2J"], width: 80) == "\\u001b[2J")
    #expect(inColumns(Array(repeating: "x", count: 1001), width: 80).hasSuffix("\n… and 1 more"))
  }
}
