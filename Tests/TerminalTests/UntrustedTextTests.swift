import Terminal
import Testing

@Suite("text from elsewhere")
struct UntrustedTextTests {
  @Test(
    "what is plain stays, what is not is an escape",
    arguments: [
      ("", ""),
      ("pc-q35-11.1 \"x\\y\"", "pc-q35-11.1 \"x\\y\""),
      ("Übergröße 日本 😀", "Übergröße 日本 😀"),
      // The terminal's own language: colour, title, clipboard, in both forms, and cut off.
      ("\u{1B}[31mred\u{1B}[0m", "\\u001b[31mred\\u001b[0m"),
      ("\u{1B}]0;title\u{7}", "\\u001b]0;title\\u0007"),
      ("\u{9B}2J\u{9D}52;c;eA==\u{9C}", "\\u009b2J\\u009d52;c;eA==\\u009c"),
      ("\u{0}\u{8}\u{7F}", "\\u0000\\u0008\\u007f"),
      ("a\r\nb\tc", "a\\r\\nb\\tc"),
      ("a\u{2028}b\u{2029}c\u{85}d", "a\\u2028b\\u2029c\\u0085d"),
      // Directions: overrides, embeddings, isolates, marks.
      ("\u{202E}gpj.exe\u{202C}", "\\u202egpj.exe\\u202c"),
      ("\u{2066}a\u{2069}\u{200F}\u{61C}", "\\u2066a\\u2069\\u200f\\u061c"),
      // What has no width.
      ("a\u{200B}b\u{200D}c\u{FEFF}d\u{AD}e\u{2060}f\u{FE0F}g\u{3164}", "a\\u200bb\\u200dc\\ufeffd\\u00ade\\u2060f\\ufe0fg\\u3164"),
      ("\u{E0041}", "\\udb40\\udc41"),
      // Private, unassigned, no character at all.
      ("\u{E000}\u{378}\u{FFFF}", "\\ue000\\u0378\\uffff"),
      // Marks: one on a letter, one on nothing, a heap of them.
      ("e\u{301}", "e\u{301}"),
      ("\u{301}e", "\\u0301e"),
      ("\n\u{301}", "\\n\\u0301"),
      ("e\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}x\u{301}", "e\u{301}\u{302}\u{303}\u{304}\\u0305\\u0306x\u{301}"),
    ])
  func escapes(text: String, shown: String) {
    #expect(text.escapedForTerminal.unicodeScalars.elementsEqual(shown.unicodeScalars), "\(text.escapedForTerminal)")
  }

  @Test("no control gets through, whichever it is and wherever it stands")
  func allControls() {
    for value in [0...0x1F, 0x7F...0x9F, 0x200B...0x200F, 0x2028...0x202E, 0x2060...0x206F] as [ClosedRange<UInt32>] {
      for scalar in value.compactMap(Unicode.Scalar.init) {
        for text in ["\(scalar)", "a\(scalar)b", "é\(scalar)\(scalar)"] {
          #expect(!text.escapedForTerminal.unicodeScalars.contains(scalar), "\(scalar.value)")
        }
      }
    }
  }

  @Test("invalid bytes are a replacement character, once decoded")
  func invalidBytes() {
    #expect(String(decoding: [0x61, 0x9B, 0xC0, 0x1B] as [UInt8], as: UTF8.self).escapedForTerminal == "a\u{FFFD}\u{FFFD}\\u001b")
  }

  @Test("long text is cut", arguments: ["a", "\u{1B}", "é"])
  func bound(text: String) {
    let long = String(repeating: text, count: 5000)
    #expect(long.escapedForTerminal == String(repeating: text.escapedForTerminal, count: String.longestUntrusted) + "…")
    #expect(long.escapedForTerminal(atMost: 2) == text.escapedForTerminal + text.escapedForTerminal + "…")
    #expect(String(repeating: text, count: 2).escapedForTerminal(atMost: 2) == text.escapedForTerminal + text.escapedForTerminal)
  }
}
