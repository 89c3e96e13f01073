/// What a person at a terminal pressed, or pasted.
public enum Key: Equatable, Sendable {
  /// One code point of text.
  case text(Unicode.Scalar)
  /// Control and a letter (in lower case), or one of `@[\]^_`.
  case control(Character)
  /// Alt (or Escape before) and what it was pressed with; Backspace is U+007F.
  case alt(Unicode.Scalar)
  case enter, tab, backTab, backspace, delete, escape
  case up, down, left, right, home, end, pageUp, pageDown
  /// Left and right with Control or Alt.
  case wordLeft, wordRight
  /// What came between the brackets of a paste, at most ``KeyDecoder/longestPaste`` bytes of it.
  case paste(String)
  /// A sequence that means nothing here.
  case unknown
}
