/// Finds the end of one JSON object, byte by byte, and notices the first byte that plain JSON (RFC 8259) does not allow there.
///
/// A value without I/O and of bounded size: nesting deeper than QEMU's own limit counts as malformed.
struct CommandScanner {
  enum Outcome: Equatable {
    /// Everything was looked at, and the object goes on.
    case unfinished
    /// The object ends before this index.
    case finished(Int)
    /// The byte at this index cannot stand there, or is a key's second mention.
    case malformed(Int)
  }

  /// QEMU's own limit (MAX_NESTING of its JSON parser).
  private static let deepest = 1023
  /// Objects with more keys are not checked for duplicates, and so not called plain.
  private static let mostKeys = 64
  /// Keys are remembered by their bytes; together no more than this.
  private static let longestKeys = 4096

  /// Whether leaving out white space is known to change nothing for QEMU. False for what it may yet find fault with, and
  /// would tell the place of: non-ASCII text, `\u` escapes, keys too many or too odd to compare.
  private(set) var isPlain = true

  private enum State {
    case value, firstElementOrEnd, firstKeyOrEnd, key, colon, commaOrEnd
    case string(isKey: Bool), escape(isKey: Bool), unicodeEscape(isKey: Bool, left: Int)
    case literal(StaticString, Int)
    case minus, zero, integer, point, fraction, exponent, exponentSign, exponentDigits
  }
  private var state = State.value
  /// One entry an open bracket: true for objects.
  private var isObject: [Bool] = []
  /// The keys of the open objects, each object's behind those of the one that it is in.
  private var keys: [UInt8] = []
  private var keyEnds: [Int] = []
  /// For each open object, how many keys were there when it began.
  private var objectStarts: [Int] = []

  /// Makes ready for the next object; the memory is kept.
  mutating func reset() {
    isPlain = true
    state = .value
    isObject.removeAll(keepingCapacity: true)
    keys.removeAll(keepingCapacity: true)
    keyEnds.removeAll(keepingCapacity: true)
    objectStarts.removeAll(keepingCapacity: true)
  }

  /// Looks at the next bytes of the object.
  mutating func scan(_ bytes: Slice<UnsafeRawBufferPointer>) -> Outcome {
    for index in bytes.indices {
      guard step(bytes[index]) else { return .malformed(index) }
      if isObject.isEmpty { return .finished(index + 1) }
    }
    return .unfinished
  }

  /// - Returns: false if the byte cannot stand here.
  private mutating func step(_ byte: UInt8) -> Bool {
    switch state {
    case .string(let isKey): return stepString(byte, isKey)
    case .escape(let isKey): return stepEscape(byte, isKey)
    case .unicodeEscape(let isKey, let left):
      guard byte.isHexDigit else { return false }
      state = left > 1 ? .unicodeEscape(isKey: isKey, left: left - 1) : .string(isKey: isKey)
      return true
    case .literal(let word, let position):
      guard byte == word.utf8Start[position] else { return false }
      state = position + 1 < word.utf8CodeUnitCount ? .literal(word, position + 1) : .commaOrEnd
      return true
    case .minus, .zero, .integer, .point, .fraction, .exponent, .exponentSign, .exponentDigits:
      if let next = numberState(after: byte) {
        state = next
        return true
      }
      // The byte is the first behind the number, if that may end here.
      guard numberMayEnd else { return false }
      state = .commaOrEnd
      return stepStructure(byte)
    default: return stepStructure(byte)
    }
  }

  private mutating func stepStructure(_ byte: UInt8) -> Bool {
    if byte.isJSONSpace { return true }
    switch (state, byte) {
    case (.firstElementOrEnd, UInt8(ascii: "]")), (.firstKeyOrEnd, UInt8(ascii: "}")): return close()
    case (.value, _), (.firstElementOrEnd, _): return beginValue(byte)
    case (.key, UInt8(ascii: "\"")), (.firstKeyOrEnd, UInt8(ascii: "\"")):
      state = .string(isKey: true)
      return true
    case (.colon, UInt8(ascii: ":")):
      state = .value
      return true
    case (.commaOrEnd, UInt8(ascii: ",")):
      state = isObject.last == true ? .key : .value
      return true
    case (.commaOrEnd, UInt8(ascii: "}")): return isObject.last == true && close()
    case (.commaOrEnd, UInt8(ascii: "]")): return isObject.last == false && close()
    default: return false
    }
  }

  private mutating func beginValue(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "{"), UInt8(ascii: "["):
      guard isObject.count < Self.deepest else { return false }
      let opensObject = byte == UInt8(ascii: "{")
      isObject.append(opensObject)
      if opensObject { objectStarts.append(keyEnds.count) }
      state = opensObject ? .firstKeyOrEnd : .firstElementOrEnd
    case UInt8(ascii: "\""): state = .string(isKey: false)
    case UInt8(ascii: "t"): state = .literal("true", 1)
    case UInt8(ascii: "f"): state = .literal("false", 1)
    case UInt8(ascii: "n"): state = .literal("null", 1)
    case UInt8(ascii: "-"): state = .minus
    case UInt8(ascii: "0"): state = .zero
    case UInt8(ascii: "1")...UInt8(ascii: "9"): state = .integer
    default: return false
    }
    return true
  }

  private mutating func close() -> Bool {
    if isObject.removeLast(), let start = objectStarts.popLast(), keyEnds.count > start {
      keys.removeLast(keys.count - (start == 0 ? 0 : keyEnds[start - 1]))
      keyEnds.removeLast(keyEnds.count - start)
    }
    state = .commaOrEnd
    return true
  }

  // MARK: strings

  private mutating func stepString(_ byte: UInt8, _ isKey: Bool) -> Bool {
    switch byte {
    case UInt8(ascii: "\""):
      state = isKey ? .colon : .commaOrEnd
      return !isKey || finishKey()
    case UInt8(ascii: "\\"):
      // Keys are compared by their bytes, which only unescaped ones allow.
      if isKey { isPlain = false }
      state = .escape(isKey: isKey)
    case 0x20...0x7E:
      if isKey, isPlain {
        keys.append(byte)
        if keys.count > Self.longestKeys { isPlain = false }
      }
    case 0x7F...0xFD: isPlain = false
    default: return false
    }
    return true
  }

  private mutating func stepEscape(_ byte: UInt8, _ isKey: Bool) -> Bool {
    switch byte {
    case UInt8(ascii: "u"):
      isPlain = false
      state = .unicodeEscape(isKey: isKey, left: 4)
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"), UInt8(ascii: "n"),
      UInt8(ascii: "r"), UInt8(ascii: "t"):
      state = .string(isKey: isKey)
    default: return false
    }
    return true
  }

  /// - Returns: false if the object has that key already, which QEMU refuses.
  private mutating func finishKey() -> Bool {
    guard isPlain, let start = objectStarts.last else { return true }
    guard keyEnds.count - start < Self.mostKeys else {
      isPlain = false
      return true
    }
    let beginning = keyEnds.last ?? 0
    let key = keys[beginning...]
    for index in start..<keyEnds.count {
      let earlier = keys[(index == 0 ? 0 : keyEnds[index - 1])..<keyEnds[index]]
      if earlier == key { return false }
    }
    keyEnds.append(keys.count)
    return true
  }

  // MARK: numbers

  private var numberMayEnd: Bool {
    switch state {
    case .zero, .integer, .fraction, .exponentDigits: true
    default: false
    }
  }

  /// The state after one more byte of a number; nil if the byte is none.
  private func numberState(after byte: UInt8) -> State? {
    let isDigit = (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    let isExponent = byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E")
    return switch state {
    case .minus where byte == UInt8(ascii: "0"): .zero
    case .minus where isDigit: .integer
    case .zero where byte == UInt8(ascii: "."): .point
    case .integer where isDigit: .integer
    case .integer where byte == UInt8(ascii: "."): .point
    // QEMU's lexer takes no exponent behind a bare zero; RFC 8259 does. Those are left to QEMU.
    case .integer where isExponent, .fraction where isExponent: .exponent
    case .point where isDigit, .fraction where isDigit: .fraction
    case .exponent where byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-"): .exponentSign
    case .exponent where isDigit, .exponentSign where isDigit, .exponentDigits where isDigit: .exponentDigits
    default: nil
    }
  }
}

extension UInt8 {
  fileprivate var isHexDigit: Bool {
    switch self {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"), UInt8(ascii: "A")...UInt8(ascii: "F"): true
    default: false
    }
  }
}
