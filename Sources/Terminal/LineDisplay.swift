/// Draws a line on a terminal, over several rows if it is long, and again when it has changed.
///
/// A value without I/O: it tells what to write. The terminal wraps the line by itself, so that it is one line for who copies it, and
/// for a terminal that wraps anew when its size changes.
public struct LineDisplay: Sendable {
  /// The terminal's size. After a change the line is to be drawn anew.
  public var size: TerminalSize
  /// What is on the screen now, in two parts: before the cursor and behind it. Nil if nothing is.
  private var drawn: (before: String, behind: String)?

  public init(size: TerminalSize) { self.size = size }

  /// Puts the line where it was, or at the beginning of the row of the cursor if it is not on the screen.
  ///
  /// - Parameters:
  ///   - prompt: what stands before the line; `style` makes it look as it should and takes no room.
  ///   - before: the line up to the cursor.
  ///   - behind: the rest of it.
  public mutating func draw(prompt: String, before: String, behind: String, style: (String) -> String = { $0 }) -> String {
    let erased = erase()
    var (prompt, before, behind) = (prompt, before, behind)
    // What has no room on the screen could not be taken off it again.
    let most = max(1, size.rows * size.columns / 2 - size.columns)
    if prompt.terminalWidth > most { prompt = "" }
    if (prompt + before).terminalWidth > most { before = "…" + Self.end(of: before, within: most - prompt.terminalWidth - 1) }
    if behind.terminalWidth > most { behind = behind.fitted(to: most) }
    drawn = (prompt + before, behind)
    let cursor = Self.place(after: prompt + before, size.columns)
    let end = Self.place(after: prompt + before + behind, size.columns)
    var output = erased + style(prompt) + before + behind
    // A terminal does not go to the next row before there is something to put there.
    if end.column == 0, end.row > 0 { output += " \r" }
    if end.row > cursor.row { output += "\u{1B}[\(end.row - cursor.row)A" }
    if end != cursor {
      output += "\r"
      if cursor.column > 0 { output += "\u{1B}[\(cursor.column)C" }
    }
    return output
  }

  /// Takes the line off the screen; the cursor is where it began.
  public mutating func erase() -> String {
    guard let drawn else { return "" }
    self.drawn = nil
    let row = Self.place(after: drawn.before, size.columns).row
    return "\r" + (row > 0 ? "\u{1B}[\(row)A" : "") + "\u{1B}[J"
  }

  /// Leaves the line on the screen; the cursor is at the beginning of the row below it.
  public mutating func leave() -> String {
    guard let drawn else { return "" }
    self.drawn = nil
    let cursor = Self.place(after: drawn.before, size.columns)
    let end = Self.place(after: drawn.before + drawn.behind, size.columns)
    return (end.row > cursor.row ? "\u{1B}[\(end.row - cursor.row)B" : "") + (end.column > 0 || end.row == 0 ? "\r\n" : "\r")
  }

  private struct Place: Equatable {
    var row = 0
    var column = 0
  }

  /// Where what follows a text is put.
  private static func place(after text: String, _ columns: Int) -> Place {
    var place = Place()
    for scalar in text.unicodeScalars {
      let width = scalar.terminalWidth
      // What is wide is not cut in two.
      if place.column + width > columns { place = Place(row: place.row + 1, column: 0) }
      place.column += width
      if place.column >= columns, width > 0 { place = Place(row: place.row + 1, column: 0) }
    }
    return place
  }

  private static func end(of text: String, within width: Int) -> String {
    var rest = text.unicodeScalars[...]
    var excess = text.terminalWidth - width
    while excess > 0, let first = rest.popFirst() { excess -= first.terminalWidth }
    return String(rest.drop { $0.isMark })
  }
}
