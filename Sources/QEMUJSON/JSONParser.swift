import Glibc

/// Puts tokens together to values, one token at a time.
struct JSONParser {
  /// Why a token cannot stand where it does, in QEMU's words.
  struct Fault: Error {
    let reason: String
  }

  private enum Expectation {
    case value, elementOrEnd, keyOrEnd, key, colon, commaOrEnd
  }
  /// An object or array that is open.
  private struct Container {
    let isObject: Bool
    var expects: Expectation
    var members = QDict()
    var elements: [QObject] = []
    /// The key whose value is to come.
    var key = ""
  }
  private var open: [Container] = []

  /// Forgets what is unfinished.
  mutating func reset() { open.removeAll() }

  /// - Returns: the value that the token completes, if that stands in no other.
  mutating func feed(_ token: JSONToken) throws(Fault) -> QObject? {
    guard !open.isEmpty else { return try begin(token) }
    let last = open.count - 1
    switch (open[last].expects, token.kind) {
    case (.keyOrEnd, .closeBrace), (.elementOrEnd, .closeBracket): return try close()
    case (.commaOrEnd, .closeBrace) where open[last].isObject: return try close()
    case (.commaOrEnd, .closeBracket) where !open[last].isObject: return try close()
    case (.keyOrEnd, .string), (.key, .string):
      open[last].key = try Self.string(token.bytes)
      open[last].expects = .colon
    case (.keyOrEnd, _), (.key, _): throw Fault(reason: "expecting key")
    case (.colon, .colon): open[last].expects = .value
    case (.colon, _): throw Fault(reason: "expecting ':'")
    case (.commaOrEnd, .comma): open[last].expects = open[last].isObject ? .key : .value
    case (.commaOrEnd, _): throw Fault(reason: "expected ',' or '\(open[last].isObject ? "}" : "]")'")
    case (.value, _), (.elementOrEnd, _):
      if let value = try begin(token) { return try add(value) }
    }
    return nil
  }

  /// A token that begins a value, or is one.
  private mutating func begin(_ token: JSONToken) throws(Fault) -> QObject? {
    switch token.kind {
    case .openBrace: open.append(Container(isObject: true, expects: .keyOrEnd))
    case .openBracket: open.append(Container(isObject: false, expects: .elementOrEnd))
    default:
      guard let value = try Self.single(token) else { throw Fault(reason: "expecting value") }
      return value
    }
    return nil
  }

  /// The value that a token is by itself; nil if it is none.
  static func single(_ token: JSONToken) throws(Fault) -> QObject? {
    switch token.kind {
    case .string: return .string(try string(token.bytes))
    case .integer, .float: return number(token)
    case .keyword:
      switch String(decoding: token.bytes, as: UTF8.self) {
      case "true": return true
      case "false": return false
      case "null": return .null
      case let word: throw Fault(reason: "invalid keyword '\(word)'")
      }
    default: return nil
    }
  }

  private mutating func close() throws(Fault) -> QObject? {
    let closed = open.removeLast()
    let value = closed.isObject ? QObject.object(closed.members) : .array(closed.elements)
    return open.isEmpty ? value : try add(value)
  }

  /// Puts a value into the container that is open.
  private mutating func add(_ value: QObject) throws(Fault) -> QObject? {
    let last = open.count - 1
    open[last].expects = .commaOrEnd
    if open[last].isObject {
      guard open[last].members[open[last].key] == nil else { throw Fault(reason: "duplicate key") }
      open[last].members[open[last].key] = value
    } else {
      open[last].elements.append(value)
    }
    return nil
  }

  /// The smallest of QEMU's kinds of numbers that it fits.
  private static func number(_ token: JSONToken) -> QObject {
    let text = String(decoding: token.bytes, as: UTF8.self)
    if token.kind == .integer {
      if let number = Int64(text) { return .integer(number) }
      if let number = UInt64(text) { return .unsigned(number) }
    }
    return .double(strtod(text, nil))
  }

  /// A string without its quotes and escapes.
  private static func string(_ token: [UInt8]) throws(Fault) -> String {
    let bytes = token[1..<token.count - 1]
    // Most need no second look.
    if bytes.allSatisfy({ (0x20..<0x7F).contains($0) && $0 != UInt8(ascii: "\\") }) { return String(decoding: bytes, as: UTF8.self) }
    let all = Array(bytes)
    var scalars = String.UnicodeScalarView()
    var index = 0
    while index < all.count {
      if all[index] == UInt8(ascii: "\\") {
        scalars.append(try escape(all, &index, quote: token[0]))
      } else {
        guard let scalar = nextCodePoint(all, &index) else { throw Fault(reason: "invalid UTF-8 sequence in string") }
        scalars.append(scalar)
      }
    }
    return String(scalars)
  }

  private static func escape(_ bytes: [UInt8], _ index: inout Int, quote: UInt8) throws(Fault) -> Unicode.Scalar {
    let start = index
    // A backslash never stands last: it would have escaped the quote.
    let letter = bytes[index + 1]
    index += 2
    switch letter {
    case UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(letter)
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{C}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"): break
    default: throw Fault(reason: "invalid escape sequence in string")
    }
    var value = hexadecimal(bytes, at: index)
    index += 4
    if let leading = value, (0xD800...0xDBFF).contains(leading),
      bytes.dropFirst(index).starts(with: [UInt8(ascii: "\\"), UInt8(ascii: "u")])
    {
      value = nil
      if let trailing = hexadecimal(bytes, at: index + 2), (0xDC00...0xDFFF).contains(trailing) {
        value = 0x10000 + (leading & 0x3FF) << 10 + (trailing & 0x3FF)
        index += 6
      }
    }
    guard let value, let scalar = scalar(value) else {
      // QEMU prints what it took for the escape, which may reach over the closing quote.
      let taken = (bytes + [quote])[start..<min(index, bytes.count + 1)]
      throw Fault(reason: "\(printable(Array(taken))) is not a valid Unicode character")
    }
    return scalar
  }

  private static func hexadecimal(_ bytes: [UInt8], at index: Int) -> UInt32? {
    guard index + 4 <= bytes.count else { return nil }
    var value: UInt32 = 0
    for byte in bytes[index..<index + 4] {
      guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else { return nil }
      value = value << 4 | UInt32(digit)
    }
    return value
  }
}
