import Terminal

/// What the human monitor answers.
enum HMPText {
  private static let tab = 8

  /// Its lines, harmless to a terminal, without the last line end.
  static func forTerminal(_ text: String) -> String {
    lines(text).map { expanded($0).escapedForTerminal(atMost: .max) }.joined(separator: "\n")
  }

  /// Its lines, each with its end, as they are otherwise.
  static func forPipe(_ text: String) -> String { lines(text).map { $0 + "\n" }.joined() }

  private static func lines(_ text: String) -> [String] {
    var lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).map(String.init)
    if lines.last?.isEmpty == true { lines.removeLast() }
    return lines
  }

  private static func expanded(_ line: String) -> String {
    var text = ""
    var column = 0
    for scalar in line.unicodeScalars {
      let blanks = scalar == "\t" ? tab - column % tab : 0
      text.unicodeScalars.append(
        contentsOf: blanks > 0 ? String(repeating: " ", count: blanks).unicodeScalars : String(scalar).unicodeScalars)
      column += max(1, blanks)
    }
    return text
  }
}
