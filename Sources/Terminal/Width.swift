extension Unicode.Scalar {
  /// How many columns this takes on a terminal: 0 for marks, 2 for what East Asian typography calls wide and for emoji, else 1. For
  /// text that is plainly visible (see ``Swift/String/escapedForTerminal``).
  public var terminalWidth: Int {
    if value < 0x300 { return 1 }
    if isMark { return 0 }
    if Self.wide.contains(where: { $0.contains(value) }) { return 2 }
    // Two regional indicators make one flag of two columns.
    return properties.isEmojiPresentation && !(0x1F1E6...0x1F1FF).contains(value) ? 2 : 1
  }

  /// The wide and fullwidth blocks of Unicode 16's EastAsianWidth.txt, without those of the emoji, which have a property of their own.
  private static let wide: [ClosedRange<UInt32>] = [
    0x1100...0x115F, 0x2329...0x232A, 0x2630...0x2637, 0x268A...0x268F, 0x2E80...0x303E, 0x3041...0x3247, 0x3250...0xA4CF, 0xA960...0xA97F,
    0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE10...0xFE19, 0xFE30...0xFE6F, 0xFF01...0xFF60, 0xFFE0...0xFFE6, 0x16FE0...0x18DFF,
    0x1AFF0...0x1B2FF, 0x1D300...0x1D376, 0x1F200...0x1F265, 0x20000...0x2FFFD, 0x30000...0x3FFFD,
  ]
}

extension StringProtocol {
  /// How many columns this takes on a terminal that is wide enough.
  public var terminalWidth: Int { unicodeScalars.reduce(0) { $0 + $1.terminalWidth } }
}

extension String {
  /// The text in exactly `width` columns: with blanks behind it, or cut, with `…` for what is left out.
  public func fitted(to width: Int, isNumber: Bool = false) -> String {
    let own = terminalWidth
    let blanks = String(repeating: " ", count: max(0, width - own))
    guard own > width else { return isNumber ? blanks + self : self + blanks }
    guard width > 0 else { return "" }
    var shown = String.UnicodeScalarView()
    var used = 1
    for scalar in unicodeScalars {
      guard used + scalar.terminalWidth <= width else { break }
      used += scalar.terminalWidth
      shown.append(scalar)
    }
    return String(shown) + "…" + String(repeating: " ", count: width - used)
  }
}
