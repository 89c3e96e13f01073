/// A JSON value as QEMU keeps it.
///
/// Not a `JSONVariant`: the simulator answers byte for byte as QEMU does, so numbers keep the kind that QEMU gives them and the
/// members of an object come in the order of QEMU's hash table.
public indirect enum QObject: Sendable, Equatable {
  case null
  case boolean(Bool)
  case integer(Int64)
  /// A number above `Int64.max` that still fits.
  case unsigned(UInt64)
  case double(Double)
  case string(String)
  case array([QObject])
  case object(QDict)

  /// Parses one JSON text, as QEMU would.
  ///
  /// - Throws: ``InvalidJSON`` with QEMU's words.
  public init(parsing text: String) throws(InvalidJSON) {
    var input = JSONInput()
    var outcomes: [JSONInput.Outcome] = []
    for byte in text.utf8 { input.feed(byte, into: &outcomes) }
    // A number or a word at the top ends with the byte behind it.
    input.feed(UInt8(ascii: " "), into: &outcomes)
    guard !input.isAmidValue else { throw InvalidJSON(description: "an incomplete JSON value") }
    guard outcomes.count <= 1 else { throw InvalidJSON(description: "more than one JSON value") }
    switch outcomes.first {
    case .value(let value)?: self = value
    case .malformed(let reason)?: throw InvalidJSON(description: reason)
    case nil: throw InvalidJSON(description: "no JSON value")
    }
  }

  /// The string, if it is one.
  public var string: String? { if case .string(let string) = self { string } else { nil } }
  /// The truth value, if it is one.
  public var boolean: Bool? { if case .boolean(let value) = self { value } else { nil } }
  /// The number, if it is a whole one that fits.
  public var integer: Int64? { if case .integer(let number) = self { number } else { nil } }
  /// The elements, if it is an array.
  public var elements: [QObject]? { if case .array(let elements) = self { elements } else { nil } }
  /// The members, if it is an object.
  public var members: QDict? { if case .object(let members) = self { members } else { nil } }
  /// The member of that name, if it is an object that has one.
  public subscript(name: String) -> QObject? { members?[name] }
}

/// A text that QEMU would not take for JSON.
public struct InvalidJSON: Error, Equatable, CustomStringConvertible {
  public let description: String
}

extension QObject: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral, ExpressibleByArrayLiteral,
  ExpressibleByDictionaryLiteral
{
  public init(stringLiteral value: String) { self = .string(value) }
  public init(integerLiteral value: Int64) { self = .integer(value) }
  public init(booleanLiteral value: Bool) { self = .boolean(value) }
  public init(arrayLiteral elements: QObject...) { self = .array(elements) }
  public init(dictionaryLiteral elements: (String, QObject)...) { self = .object(QDict(elements)) }
}
