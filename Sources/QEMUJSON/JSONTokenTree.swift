/// Makes a value of all its tokens at once, as QEMU before 11.1 does: with other words for what it finds, and later.
struct JSONTokenTree {
  private var tokens: ArraySlice<JSONToken>

  /// - Parameter tokens: those of one value, or up to the bracket too many.
  /// - Throws: the first thing that is wrong, and the place of the token.
  static func value(of tokens: [JSONToken]) throws(Fault) -> QObject {
    var tree = JSONTokenTree(tokens: tokens[...])
    return try tree.value()
  }

  struct Fault: Error {
    let reason: String
    let place: TextPlace
  }

  private mutating func next() throws(Fault) -> JSONToken {
    guard let token = tokens.popFirst() else { throw Fault(reason: "premature EOI", place: TextPlace(line: 1, column: 1)) }
    return token
  }

  private mutating func value() throws(Fault) -> QObject {
    let token = try next()
    switch token.kind {
    case .openBrace: return try object()
    case .openBracket: return try array()
    default:
      do throws(JSONParser.Fault) {
        guard let value = try JSONParser.single(token) else { throw JSONParser.Fault(reason: "expecting value") }
        return value
      } catch {
        throw Fault(reason: error.reason, place: token.place)
      }
    }
  }

  private mutating func object() throws(Fault) -> QObject {
    var members = QDict()
    if tokens.first?.kind == .closeBrace {
      tokens.removeFirst()
      return .object(members)
    }
    while true {
      let first = tokens.first
      guard case .string(let key) = try value() else {
        throw Fault(reason: "key is not a string in object", place: first?.place ?? TextPlace(line: 1, column: 1))
      }
      let colon = try next()
      guard colon.kind == .colon else { throw Fault(reason: "missing : in object pair", place: colon.place) }
      let value = try value()
      guard members[key] == nil else { throw Fault(reason: "duplicate key", place: colon.place) }
      members[key] = value
      let separator = try next()
      if separator.kind == .closeBrace { return .object(members) }
      guard separator.kind == .comma else { throw Fault(reason: "expected separator in dict", place: separator.place) }
    }
  }

  private mutating func array() throws(Fault) -> QObject {
    if tokens.first?.kind == .closeBracket {
      tokens.removeFirst()
      return .array([])
    }
    var elements: [QObject] = []
    while true {
      elements.append(try value())
      let separator = try next()
      if separator.kind == .closeBracket { return .array(elements) }
      guard separator.kind == .comma else { throw Fault(reason: "expected separator in list", place: separator.place) }
    }
  }
}
