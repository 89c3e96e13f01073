import Terminal

/// As much of a terminal as drawing a line takes: a grid that wraps late, as VT100 and all since do.
struct Screen {
  private(set) var cells: [[String]]
  private(set) var row = 0
  private(set) var column = 0
  /// The cursor is behind the last column, and the next character begins a row.
  private var wraps = false
  private let size: TerminalSize

  init(_ size: TerminalSize) {
    self.size = size
    cells = Array(repeating: Self.blank(size), count: size.rows)
  }

  private static func blank(_ size: TerminalSize) -> [String] { Array(repeating: " ", count: size.columns) }

  /// The rows, without the blanks at their ends.
  var rows: [String] {
    cells.map { row in
      let end = row.lastIndex { $0 != " " }.map { $0 + 1 } ?? 0
      return row[..<end].joined()
    }
  }

  mutating func write(_ output: String) {
    var rest = output.unicodeScalars[...]
    while let scalar = rest.popFirst() {
      switch scalar {
      case "\r": (column, wraps) = (0, false)
      case "\n": lineFeed()
      case "\u{7}": break
      case "\u{1B}": control(&rest)
      default: put(scalar)
      }
    }
  }

  private mutating func lineFeed() {
    wraps = false
    if row < size.rows - 1 { return row += 1 }
    cells.removeFirst()
    cells.append(Self.blank(size))
  }

  private mutating func put(_ scalar: Unicode.Scalar) {
    let width = scalar.terminalWidth
    guard width > 0 else {
      let at = wraps ? column : max(0, column - 1)
      cells[row][at].unicodeScalars.append(scalar)
      return
    }
    if wraps || column + width > size.columns {
      column = 0
      lineFeed()
    }
    cells[row][column] = String(scalar)
    if width == 2 { cells[row][column + 1] = "" }
    column += width
    if column == size.columns { (column, wraps) = (column - 1, true) }
  }

  private mutating func control(_ rest: inout Substring.UnicodeScalarView) {
    precondition(rest.popFirst() == "[", "a sequence that this does not know")
    var digits = ""
    while let scalar = rest.first, ("0"..."9").contains(scalar) {
      digits.unicodeScalars.append(scalar)
      rest.removeFirst()
    }
    let count = Int(digits) ?? 1
    wraps = false
    switch rest.popFirst() {
    case "A": row = max(0, row - count)
    case "B": row = min(size.rows - 1, row + count)
    case "C": column = min(size.columns - 1, column + count)
    case "J":
      for column in column..<size.columns { cells[row][column] = " " }
      for row in row + 1..<max(row + 1, size.rows) { cells[row] = Self.blank(size) }
    case let final: preconditionFailure("a sequence that this does not know: \(String(describing: final))")
    }
  }
}
