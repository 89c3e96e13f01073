/// Makes keys of the bytes that a terminal sends (ECMA-48 and xterm's additions).
///
/// A value without I/O, fed byte by byte. Its memory is bounded; what is not valid UTF-8 becomes U+FFFD.
public struct KeyDecoder: Sendable {
  /// How many bytes of a paste are kept; the rest is dropped.
  public static let longestPaste = 1 << 20
  private static let longestSequence = 64
  private static let endOfPaste = Array("\u{1B}[201~".utf8)

  private enum State {
    case ground
    case escape
    /// ESC O, which some terminals send for arrows.
    case singleShift
    /// ESC [ and the bytes behind it.
    case sequence([UInt8])
    /// The bytes of a code point, of which so many are missing.
    case codePoint([UInt8], missing: Int)
    /// What was pasted so far, and how much of ``endOfPaste`` has come.
    case paste([UInt8], ending: Int)
  }
  private var state = State.ground

  public init() {}

  /// Whether a sequence has begun whose end may never come: a lone Escape is how all of them begin. A paste is none.
  public var isAmidSequence: Bool {
    switch state {
    case .escape, .singleShift, .sequence, .codePoint: true
    case .ground, .paste: false
    }
  }

  /// What came so far, when no more comes.
  public mutating func flush(into keys: inout [Key]) {
    guard isAmidSequence else { return }
    if case .escape = state { keys.append(.escape) } else { keys.append(.unknown) }
    state = .ground
  }

  /// Takes in one byte, and appends what it completes.
  public mutating func feed(_ byte: UInt8, into keys: inout [Key]) {
    switch state {
    case .ground: begin(byte, into: &keys)
    case .escape: escaped(byte, into: &keys)
    case .singleShift:
      state = .ground
      keys.append(Self.key([], final: byte))
    case .sequence(let bytes): sequence(bytes, byte, into: &keys)
    case .codePoint(let bytes, let missing):
      guard byte & 0xC0 == 0x80 else {
        keys.append(.text("\u{FFFD}"))
        state = .ground
        return begin(byte, into: &keys)
      }
      guard missing == 1 else { return state = .codePoint(bytes + [byte], missing: missing - 1) }
      state = .ground
      let decoded = String(decoding: bytes + [byte], as: UTF8.self).unicodeScalars
      keys.append(.text(decoded.count == 1 ? decoded[decoded.startIndex] : "\u{FFFD}"))
    case .paste(var bytes, let ending):
      // Given away, so that what grows is not copied for each byte.
      state = .ground
      let ending = byte == Self.endOfPaste[ending] ? ending + 1 : byte == Self.endOfPaste[0] ? 1 : 0
      // One byte too many tells that there were more.
      let most = Self.longestPaste + Self.endOfPaste.count
      if bytes.count <= most { bytes.append(byte) }
      guard ending == Self.endOfPaste.count else { return state = .paste(bytes, ending: ending) }
      let kept = bytes.count <= most ? bytes.dropLast(ending) : bytes.prefix(Self.longestPaste)
      keys.append(.paste(String(decoding: kept, as: UTF8.self)))
    }
  }

  private mutating func begin(_ byte: UInt8, into keys: inout [Key]) {
    switch byte {
    case 0x1B: state = .escape
    case 0x0A, 0x0D: keys.append(.enter)
    case 0x09: keys.append(.tab)
    case 0x08, 0x7F: keys.append(.backspace)
    case 0..<0x20: keys.append(.control(Character(Unicode.Scalar(byte < 0x1B && byte > 0 ? byte | 0x60 : byte | 0x40))))
    case 0x20..<0x7F: keys.append(.text(Unicode.Scalar(byte)))
    case 0xC2...0xDF: state = .codePoint([byte], missing: 1)
    case 0xE0...0xEF: state = .codePoint([byte], missing: 2)
    case 0xF0...0xF4: state = .codePoint([byte], missing: 3)
    default: keys.append(.text("\u{FFFD}"))
    }
  }

  private mutating func escaped(_ byte: UInt8, into keys: inout [Key]) {
    state = .ground
    switch byte {
    case UInt8(ascii: "["): state = .sequence([])
    case UInt8(ascii: "O"): state = .singleShift
    case 0x1B:
      keys.append(.escape)
      state = .escape
    case 0x20...0x7F: keys.append(.alt(Unicode.Scalar(byte)))
    default:
      keys.append(.escape)
      begin(byte, into: &keys)
    }
  }

  private mutating func sequence(_ bytes: [UInt8], _ byte: UInt8, into keys: inout [Key]) {
    switch byte {
    case 0x20...0x3F where bytes.count < Self.longestSequence: state = .sequence(bytes + [byte])
    case 0x40...0x7E where bytes == Array("200".utf8) && byte == UInt8(ascii: "~"): state = .paste([], ending: 0)
    case 0x40...0x7E:
      state = .ground
      keys.append(Self.key(bytes, final: byte))
    default:
      state = .ground
      keys.append(.unknown)
      if byte < 0x20 || byte > 0x7E { begin(byte, into: &keys) }
    }
  }

  /// The key of a sequence: `ESC [ parameters final`.
  private static func key(_ parameters: [UInt8], final: UInt8) -> Key {
    let numbers = parameters.split(separator: UInt8(ascii: ";"), omittingEmptySubsequences: false).map {
      Int(String(decoding: $0, as: UTF8.self)) ?? 0
    }
    // One more than a set of bits: 1 Shift, 2 Alt, 4 Control.
    let hasModifier = numbers.count > 1 && (numbers[1] - 1) & 6 != 0
    switch final {
    case UInt8(ascii: "A"): return .up
    case UInt8(ascii: "B"): return .down
    case UInt8(ascii: "C"): return hasModifier ? .wordRight : .right
    case UInt8(ascii: "D"): return hasModifier ? .wordLeft : .left
    case UInt8(ascii: "H"): return .home
    case UInt8(ascii: "F"): return .end
    case UInt8(ascii: "Z"): return .backTab
    case UInt8(ascii: "~"):
      switch numbers.first {
      case 1, 7: return .home
      case 3: return hasModifier ? .alt("d") : .delete
      case 4, 8: return .end
      case 5: return .pageUp
      case 6: return .pageDown
      default: return .unknown
      }
    default: return .unknown
    }
  }
}
