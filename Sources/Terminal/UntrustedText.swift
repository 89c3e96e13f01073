extension String {
  /// The text with nothing in it that could control a terminal, or show something else than is there: for all that comes from
  /// machines, their QEMUs, guests and hosts.
  ///
  /// What is not plainly visible becomes an escape as JSON has them (`\n`, `\u001b`): controls of ASCII and Latin-1, line and paragraph
  /// separators, what changes the direction of writing, what has no width, what Unicode does not assign or leaves to private use, and
  /// combining marks that have no letter or are more than ``mostMarks`` on one. JSON text stays the same value. The rest stays as it
  /// is, the backslash too: this is for people, not to be taken back.
  ///
  /// At most ``longestUntrusted`` scalars of it are shown, and `…` for the rest.
  public var escapedForTerminal: String { escapedForTerminal(atMost: Self.longestUntrusted) }

  /// ``escapedForTerminal`` with another bound.
  ///
  /// - Parameter limit: how many scalars of the text are shown. Each is twelve ASCII characters at most.
  public func escapedForTerminal(atMost limit: Int) -> String {
    if utf8.count <= limit, utf8.allSatisfy({ (0x20..<0x7F).contains($0) }) { return self }
    var shown = String.UnicodeScalarView()
    // At the beginning a mark would go on the letter before the text.
    var marks = Self.mostMarks
    var count = 0
    for scalar in unicodeScalars {
      guard count < limit else {
        shown.append("…")
        break
      }
      count += 1
      let isMark = scalar.isMark
      if scalar.isPlainlyVisible, !isMark || marks < Self.mostMarks {
        shown.append(scalar)
        marks = isMark ? marks + 1 : 0
      } else {
        shown.append(contentsOf: scalar.jsonEscape.unicodeScalars)
        marks = Self.mostMarks
      }
    }
    return String(shown)
  }

  /// How many scalars ``escapedForTerminal`` shows of a text.
  public static let longestUntrusted = 4096
  /// How many combining marks a letter may have.
  public static let mostMarks = 4
}

extension Unicode.Scalar {
  /// Whether it stands for itself on a terminal, alone or on the letter before.
  fileprivate var isPlainlyVisible: Bool {
    if (0x20..<0x7F).contains(value) { return true }
    switch properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned: return false
    default: return !properties.isDefaultIgnorableCodePoint
    }
  }

  /// Whether it combines with the letter before.
  var isMark: Bool {
    switch properties.generalCategory {
    case .nonspacingMark, .enclosingMark, .spacingMark: true
    default: false
    }
  }

  fileprivate var jsonEscape: String {
    switch self {
    case "\n": "\\n"
    case "\r": "\\r"
    case "\t": "\\t"
    default:
      UTF16.encode(self).map { unit in
        unit.map { "\\u" + String(repeating: "0", count: $0.leadingZeroBitCount / 4) + ($0 == 0 ? "" : String($0, radix: 16)) }.joined()
      } ?? ""
    }
  }
}
