import Terminal

/// How words stand out on a terminal.
public enum Emphasis: Sendable {
  case plain, good, doubtful, bad, faint, heading

  /// The codes of ECMA-48 for it.
  fileprivate var code: String? {
    switch self {
    case .plain: nil
    case .good: "32"
    case .doubtful: "33"
    case .bad: "31"
    case .faint: "90"
    case .heading: "4"
    }
  }
}

/// Whether output has colours: on a terminal that knows them, unless `$NO_COLOR` says no.
public struct Style: Sendable {
  public let hasColors: Bool

  public init(hasColors: Bool) { self.hasColors = hasColors }

  /// - Parameter isTerminal: whether the output goes to one.
  public static func standard(
    isTerminal: Bool = StandardOutput.isTerminal, environment: (String) -> String? = ProcessEnvironment.value
  ) -> Style {
    let isForbidden = environment("NO_COLOR").map { !$0.isEmpty } ?? false
    return Style(hasColors: isTerminal && !isForbidden && environment("TERM") != "dumb")
  }

  /// The text with its emphasis, and harmless otherwise, wherever it comes from.
  public func callAsFunction(_ text: String, _ emphasis: Emphasis = .plain) -> String {
    let text = text.escapedForTerminal
    guard hasColors, let code = emphasis.code else { return text }
    return "\u{1B}[\(code)m\(text)\u{1B}[0m"
  }
}

/// Rows with aligned columns, for a person. What is in them may come from anywhere.
public struct Table: Sendable {
  /// One place in it.
  public struct Cell: Sendable, ExpressibleByStringInterpolation {
    let text: String
    let emphasis: Emphasis

    /// - Parameter text: nil for what is not known.
    public init(_ text: String?, _ emphasis: Emphasis = .plain) {
      self.text = (text ?? "-").escapedForTerminal(atMost: Table.widestCell)
      self.emphasis = text == nil ? .faint : emphasis
    }

    public init(stringLiteral text: String) { self.init(text) }
  }

  /// How a column is aligned.
  public enum Alignment: Sendable {
    case left, right
  }

  fileprivate static let widestCell = 256
  private let columns: [(title: String, alignment: Alignment)]
  private var rows: [[Cell]] = []

  /// - Parameter columns: their titles, and how they are aligned.
  public init(_ columns: KeyValuePairs<String, Alignment>) { self.columns = columns.map { ($0.key, $0.value) } }

  public var isEmpty: Bool { rows.isEmpty }
  public var count: Int { rows.count }

  /// Adds a row, which has as many cells as there are columns.
  public mutating func add(_ row: [Cell]) {
    precondition(row.count == columns.count, "a row of another table")
    rows.append(row)
  }

  /// The lines, each with its end.
  ///
  /// - Parameter hasLegend: whether the titles are above.
  public func text(_ style: Style, hasLegend: Bool = true) -> String {
    let titles = columns.map { Cell($0.title, .heading) }
    let lines = hasLegend ? [titles] + rows : rows
    let widths = columns.indices.map { column in lines.lazy.map { $0[column].text.count }.max() ?? 0 }
    var text = ""
    for line in lines {
      var shown = ""
      for (column, cell) in line.enumerated() {
        let padding = String(repeating: " ", count: widths[column] - cell.text.count)
        if column > 0 { shown += " " }
        if columns[column].alignment == .right { shown += padding }
        shown += style(cell.text, cell.emphasis)
        if columns[column].alignment == .left, column < line.count - 1 { shown += padding }
      }
      text += shown + "\n"
    }
    return text
  }
}
