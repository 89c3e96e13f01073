/// What QEMU's lexer cuts its input into.
package struct JSONToken {
  package enum Kind {
    case openBrace, closeBrace, openBracket, closeBracket, colon, comma, string, integer, float, keyword
    /// Bytes that begin no token, up to the one that shows it.
    case stray
    /// More bytes than a token may have: so many of them, or, of one that was passed over, its beginning.
    case oversized
  }
  package let kind: Kind
  package let bytes: [UInt8]
  /// Where it begins, as QEMU tells it in its messages.
  package let place: TextPlace
}

/// A line and a column, from 1.
package struct TextPlace: Equatable, CustomStringConvertible {
  package let line: Int
  package let column: Int
  package var description: String { "\(line):\(column)" }
}

/// Cuts input into tokens as QEMU's lexer does, with its extensions (single quotes) and its peculiarities:
/// - an error ends at the byte that shows it; what follows is skipped up to the next structural character, line end or 0xFE, 0xFF;
/// - the column of a token that stands right behind a number, a word or skipped bytes is one too high.
package struct JSONLexer {
  /// The longest token, in bytes.
  private let longestToken: Int
  /// Whether a longer one goes on to where it ends. For QEMU, which has a limit of its own, it is over, and what follows begins anew,
  /// in the middle of a string or not.
  private let passesOverOversized: Bool

  private enum State {
    case start, skipping
    case string(quote: UInt8), escape(quote: UInt8)
    case sign, zero, digits, point, fraction, exponent, exponentSign, exponentDigits
    case keyword
  }
  /// What a byte means in a state.
  private enum Step {
    /// It belongs to the token, which goes on in this state.
    case into(State)
    /// It ends the token and belongs to it.
    case ends(JSONToken.Kind)
    /// The token ended before it; nil for bytes that were skipped.
    case endedBefore(JSONToken.Kind?)
    /// It is white space between tokens.
    case space
  }

  private var state = State.start
  private var token: [UInt8] = []
  /// The end of what came so far.
  private var line = 0
  private var column = 0
  /// Where the token under way begins.
  private var start = TextPlace(line: 1, column: 1)

  package init(longestToken: Int = JSONInput.longestValue, passesOverOversized: Bool = false) {
    self.longestToken = longestToken
    self.passesOverOversized = passesOverOversized
  }

  /// Whether a token has begun and not ended.
  package var isAmidToken: Bool { !token.isEmpty }

  /// Takes in one byte.
  ///
  /// - Returns: the token that it shows to have ended before, and the one that it ends itself.
  package mutating func feed(_ byte: UInt8) -> (before: JSONToken?, with: JSONToken?) {
    column += 1
    if byte == UInt8(ascii: "\n") {
      column = 0
      line += 1
    }
    var before: JSONToken?
    while true {
      switch step(byte) {
      case .into(let next):
        append(byte)
        state = next
        return (before, isOversized && !passesOverOversized ? finish(.oversized) : nil)
      case .ends(let kind):
        append(byte)
        let ended = finish(kind)
        if kind == .stray { state = .skipping }
        return (before, ended)
      case .endedBefore(let kind?): before = finish(kind)
      case .endedBefore(nil): restart()
      case .space:
        // Skipped bytes are no token, and where they are has no place.
        if case .start = state { restart() }
        return (before, nil)
      }
    }
  }

  private var isOversized: Bool { token.count > longestToken }

  private mutating func append(_ byte: UInt8) {
    if !isOversized { token.append(byte) }
  }

  private mutating func finish(_ kind: JSONToken.Kind) -> JSONToken {
    defer { restart() }
    // What does not belong in a token is an error in a long one too, at which QEMU begins anew.
    let isTooLong = passesOverOversized && isOversized && kind != .stray
    return JSONToken(kind: isTooLong ? .oversized : kind, bytes: token, place: start)
  }

  private mutating func restart() {
    // The bytes have been handed out: kept capacity would be new memory, as much for a bracket as for the longest token before.
    token = []
    state = .start
    start = TextPlace(line: line + 1, column: column + 1)
  }

  private func step(_ byte: UInt8) -> Step {
    let isDigit = (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    let isExponent = byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E")
    let isPoint = byte == UInt8(ascii: ".")
    switch state {
    case .start: return first(byte)
    case .skipping: return Self.endsSkipping(byte) ? .endedBefore(nil) : .space
    case .string(let quote):
      if byte == quote { return .ends(.string) }
      guard Self.isInString(byte) else { return .ends(.stray) }
      return .into(byte == UInt8(ascii: "\\") ? .escape(quote: quote) : .string(quote: quote))
    case .escape(let quote): return Self.isInString(byte) ? .into(.string(quote: quote)) : .ends(.stray)
    case .sign: return isDigit ? .into(byte == UInt8(ascii: "0") ? .zero : .digits) : .ends(.stray)
    case .zero:
      if isDigit { return .ends(.stray) }
      return isPoint ? .into(.point) : .endedBefore(.integer)
    case .digits:
      if isDigit { return .into(.digits) }
      if isPoint { return .into(.point) }
      return isExponent ? .into(.exponent) : .endedBefore(.integer)
    case .point: return isDigit ? .into(.fraction) : .ends(.stray)
    case .fraction:
      if isDigit { return .into(.fraction) }
      return isExponent ? .into(.exponent) : .endedBefore(.float)
    case .exponent:
      if byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-") { return .into(.exponentSign) }
      return isDigit ? .into(.exponentDigits) : .ends(.stray)
    case .exponentSign: return isDigit ? .into(.exponentDigits) : .ends(.stray)
    case .exponentDigits: return isDigit ? .into(.exponentDigits) : .endedBefore(.float)
    case .keyword: return Self.isLetter(byte) ? .into(.keyword) : .endedBefore(.keyword)
    }
  }

  private func first(_ byte: UInt8) -> Step {
    switch byte {
    case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"), UInt8(ascii: "\n"): .space
    case UInt8(ascii: "{"): .ends(.openBrace)
    case UInt8(ascii: "}"): .ends(.closeBrace)
    case UInt8(ascii: "["): .ends(.openBracket)
    case UInt8(ascii: "]"): .ends(.closeBracket)
    case UInt8(ascii: ":"): .ends(.colon)
    case UInt8(ascii: ","): .ends(.comma)
    case UInt8(ascii: "\""), UInt8(ascii: "'"): .into(.string(quote: byte))
    case UInt8(ascii: "-"): .into(.sign)
    case UInt8(ascii: "0"): .into(.zero)
    case UInt8(ascii: "1")...UInt8(ascii: "9"): .into(.digits)
    case _ where Self.isLetter(byte): .into(.keyword)
    default: .ends(.stray)
    }
  }

  private static func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) }
  private static func isInString(_ byte: UInt8) -> Bool { (0x20...0xFD).contains(byte) }
  private static func endsSkipping(_ byte: UInt8) -> Bool {
    (byte < 0x20 && byte != UInt8(ascii: "\t")) || byte >= 0xFE || "[]{}:,".utf8.contains(byte)
  }
}
