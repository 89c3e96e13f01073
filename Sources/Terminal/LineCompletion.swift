/// What could stand where the cursor is.
public struct LineCompletion: Equatable, Sendable {
  /// One text that could.
  public struct Candidate: Equatable, Sendable {
    public let text: String
    /// What goes behind it once it is the only one, such as a blank.
    public let suffix: String

    public init(_ text: String, suffix: String = " ") {
      self.text = text
      self.suffix = suffix
    }
  }

  /// How many characters before the cursor the candidates would stand for.
  public let replaced: Int
  public let candidates: [Candidate]

  public init(replacing replaced: Int, with candidates: [Candidate]) {
    self.replaced = replaced
    self.candidates = candidates
  }

  /// Those of `candidates` that begin with `typed`, in order.
  public init(of typed: String, among candidates: some Sequence<Candidate>) {
    self.init(replacing: typed.count, with: candidates.filter { $0.text.hasPrefix(typed) }.sorted { $0.text < $1.text })
  }

  public static let none = LineCompletion(replacing: 0, with: [])

  /// What all candidates begin with.
  var commonPrefix: String {
    guard let first = candidates.first?.text else { return "" }
    return candidates.dropFirst().reduce(first) { common, candidate in
      String(zip(common, candidate.text).prefix { $0 == $1 }.map(\.0))
    }
  }
}

/// Texts side by side in as many columns of equal width as fit, each column read downwards.
///
/// - Parameter width: of the terminal.
public func inColumns(_ texts: [String], width: Int) -> String {
  let most = 1000
  let shown = texts.prefix(most).map(\.escapedForTerminal)
  let column = (shown.map(\.terminalWidth).max() ?? 0) + 2
  let columns = max(1, (width + 1) / column)
  let rows = (shown.count + columns - 1) / columns
  var lines = (0..<rows).map { row in
    let cells = stride(from: row, to: shown.count, by: rows).map { shown[$0] }
    return cells.dropLast().map { $0.fitted(to: column) }.joined() + (cells.last ?? "")
  }
  if texts.count > most { lines.append("… and \(texts.count - most) more") }
  return lines.joined(separator: "\n")
}
