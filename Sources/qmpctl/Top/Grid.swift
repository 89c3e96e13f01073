import Terminal

/// Rows with aligned columns that are cut to a width. What is in them may come from anywhere.
struct Grid {
  enum Alignment { case left, right }

  private let titles: [(text: String, alignment: Alignment)]
  private var rows: [[(text: String, look: Look?)]] = []
  private static let widest = 32

  init(_ titles: [(String, Alignment)]) { self.titles = titles }

  var isEmpty: Bool { rows.isEmpty }

  /// Adds a row, which has as many cells as there are titles.
  mutating func add(_ row: [(String, Look?)]) {
    rows.append(row.map { ($0.0.escapedForTerminal(atMost: 256), $0.1) })
  }

  /// - Parameter width: how many columns a line may take; nil for any number.
  func lines(_ looks: Looks, _ width: Int?) -> [String] {
    let widths = titles.indices.map { column in
      min(Self.widest, rows.reduce(titles[column].text.count) { max($0, $1[column].text.terminalWidth) })
    }
    let heading = titles.map { ($0.text, Look?.some(.reverse)) }
    return ([heading] + rows).map { row in
      var line = ""
      var left = width ?? .max
      for (column, cell) in row.enumerated() where left > 0 {
        let room = min(widths[column], left)
        let text = cell.0.fitted(to: room, isNumber: titles[column].alignment == .right)
        line += cell.1.map { looks(text, $0) } ?? text
        left -= room
        guard column < row.count - 1, left > 0 else { continue }
        line += " "
        left -= 1
      }
      return line
    }
  }
}
