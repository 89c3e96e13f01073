/// A command as a person types it: its name, and `key=value` or JSON behind it.
///
/// Blanks separate words; quotes of both kinds and a backslash keep them together, and make a value text. An opening brace or bracket at the beginning of a
/// word or of a value begins JSON, which reaches up to the bracket that closes it.
public struct TypedLine: Sendable {
  /// One word of it.
  public struct Word: Sendable, Equatable {
    /// What stands before the first `=` that is outside of quotes; nil if there is none.
    public internal(set) var key: String?
    /// The rest, without its quotes.
    public internal(set) var value: String
    /// How the value is written.
    public internal(set) var form: Form
  }
  /// How a value is written.
  public enum Form: Sendable, Equatable {
    case plain, quoted, json
  }

  public private(set) var words: [Word] = []
  /// Whether the last word is what is still being typed: nothing stands behind it.
  private(set) var endsInWord = false

  /// - Throws: ``ArgumentError`` for quotes and brackets that are not closed.
  public init(_ line: String) throws(ArgumentError) {
    var rest = line.unicodeScalars[...]
    while true {
      rest = rest.drop { $0.properties.isWhitespace }
      guard !rest.isEmpty else { return }
      words.append(try Self.word(&rest))
      endsInWord = rest.isEmpty
    }
  }

  /// Takes words that a shell has made already: `key=value`, JSON if it begins so, and no quotes.
  public init(words: [String]) {
    self.words = words.map { text in
      func form(_ value: some StringProtocol) -> Form { value.hasPrefix("{") || value.hasPrefix("[") ? .json : .plain }
      guard form(text) == .plain, let equals = text.firstIndex(of: "="), equals != text.startIndex else {
        return Word(key: nil, value: text, form: form(text))
      }
      let value = text[text.index(after: equals)...]
      return Word(key: String(text[..<equals]), value: String(value), form: form(value))
    }
  }

  private static func word(_ rest: inout Substring.UnicodeScalarView) throws(ArgumentError) -> Word {
    var word = Word(key: nil, value: "", form: .plain)
    var text = String.UnicodeScalarView()
    while let scalar = rest.first, !scalar.properties.isWhitespace {
      switch scalar {
      case "{" where text.isEmpty && word.form == .plain, "[" where text.isEmpty && word.form == .plain:
        word.form = .json
        text = try json(&rest)
        guard rest.first?.properties.isWhitespace ?? true else { throw ArgumentError("there is something right behind a closing bracket") }
      case "'", "\"":
        rest.removeFirst()
        word.form = .quoted
        text.append(contentsOf: try quoted(by: scalar, &rest))
      case "\\":
        rest.removeFirst()
        word.form = .quoted
        guard let escaped = rest.popFirst() else { throw ArgumentError("there is nothing behind the backslash") }
        text.append(escaped)
      case "=" where word.key == nil && word.form == .plain && !text.isEmpty:
        rest.removeFirst()
        word.key = String(text)
        text.removeAll()
      default:
        rest.removeFirst()
        text.append(scalar)
      }
    }
    word.value = String(text)
    return word
  }

  private static func quoted(
    by quote: Unicode.Scalar, _ rest: inout Substring.UnicodeScalarView
  ) throws(ArgumentError) -> String.UnicodeScalarView {
    var text = String.UnicodeScalarView()
    while let scalar = rest.popFirst() {
      if scalar == quote { return text }
      if scalar == "\\", quote == "\"", let next = rest.first, next == "\"" || next == "\\" {
        text.append(next)
        rest.removeFirst()
      } else {
        text.append(scalar)
      }
    }
    throw ArgumentError("a quote (\(quote)) is not closed")
  }

  private static func json(_ rest: inout Substring.UnicodeScalarView) throws(ArgumentError) -> String.UnicodeScalarView {
    var text = String.UnicodeScalarView()
    var depth = 0
    var isInString = false
    while let scalar = rest.popFirst() {
      text.append(scalar)
      if isInString {
        if scalar == "\\", let escaped = rest.popFirst() { text.append(escaped) }
        if scalar == "\"" { isInString = false }
        continue
      }
      switch scalar {
      case "\"": isInString = true
      case "{", "[": depth += 1
      case "}", "]":
        depth -= 1
        if depth == 0 { return text }
      default: break
      }
    }
    throw ArgumentError("the JSON does not end")
  }
}

/// What is wrong with a command before QEMU sees it, on one line.
public struct ArgumentError: Error, Equatable, CustomStringConvertible {
  public let description: String

  init(_ description: String) { self.description = description }
}
