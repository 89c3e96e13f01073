/// Cuts the text of a reply to `query-qmp-schema` into the entries of the schema, without parsing them.
public struct SchemaText: Sequence, IteratorProtocol, Sendable {
  private let reply: [UInt8]
  private var offset = 0

  /// - Parameter reply: one QMP message: an object whose `return` is an array of objects.
  /// - Throws: ``SchemaError`` for anything else.
  public init(_ reply: [UInt8]) throws(SchemaError) {
    self.reply = reply
    let beginning = #"{"return":["#.utf8
    var matched = beginning.startIndex
    while offset < reply.count, matched < beginning.endIndex {
      let byte = reply[offset]
      offset += 1
      if byte == UInt8(ascii: " ") { continue }
      guard byte == beginning[matched] else { break }
      matched = beginning.index(after: matched)
    }
    guard matched == beginning.endIndex else { throw SchemaError("the schema is not an array") }
  }

  /// The text of the next entry; nil at the end of the array.
  public mutating func next() -> ArraySlice<UInt8>? {
    var depth = 0
    var start = offset
    var isInString = false
    var isEscaped = false
    while offset < reply.count {
      let byte = reply[offset]
      offset += 1
      if isInString {
        if isEscaped {
          isEscaped = false
        } else if byte == UInt8(ascii: "\\") {
          isEscaped = true
        } else if byte == UInt8(ascii: "\"") {
          isInString = false
        }
        continue
      }
      switch byte {
      case UInt8(ascii: "\""): isInString = true
      case UInt8(ascii: "{"), UInt8(ascii: "["):
        if depth == 0 { start = offset - 1 }
        depth += 1
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        depth -= 1
        if depth == 0 { return reply[start..<offset] }
        if depth < 0 {
          offset = reply.count
          return nil
        }
      default: break
      }
    }
    return nil
  }
}
