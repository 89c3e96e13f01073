import Glibc

extension QObject {
  /// The value as QEMU writes it: a blank behind `:` and `,`, ASCII only, members in the order of the hash table.
  public var text: String { String(decoding: encoded(pretty: false), as: UTF8.self) }

  /// The same as bytes; `pretty` puts each member and element on a line of its own, as `pretty=on` of a monitor does.
  package func encoded(pretty: Bool) -> [UInt8] {
    var output = JSONOutput(isPretty: pretty)
    output.write(self)
    return output.bytes
  }
}

/// Writes JSON as QEMU spells it.
private struct JSONOutput {
  let isPretty: Bool
  var bytes: [UInt8] = []
  private var depth = 0

  init(isPretty: Bool) { self.isPretty = isPretty }

  mutating func write(_ value: QObject) {
    switch value {
    case .null: append("null")
    case .boolean(let value): append(value ? "true" : "false")
    case .integer(let number): append(String(number))
    case .unsigned(let number): append(String(number))
    case .double(let number): append(Self.spelling(of: number))
    case .string(let string): write(string)
    case .array(let elements):
      list("[", "]", elements) { $0.write($1) }
    case .object(let members):
      list("{", "}", members.ordered) {
        $0.write($1.name)
        $0.append(": ")
        $0.write($1.value)
      }
    }
  }

  private mutating func list<Element>(_ open: String, _ close: String, _ elements: [Element], _ write: (inout Self, Element) -> Void) {
    append(open)
    depth += 1
    for (index, element) in elements.enumerated() {
      if index > 0 { append(isPretty ? "," : ", ") }
      breakLine()
      write(&self, element)
    }
    depth -= 1
    breakLine()
    append(close)
  }

  private mutating func breakLine() {
    guard isPretty else { return }
    append("\n")
    bytes.append(contentsOf: repeatElement(UInt8(ascii: " "), count: 4 * depth))
  }

  private mutating func write(_ string: String) {
    append("\"")
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"": append("\\\"")
      case "\\": append("\\\\")
      case "\u{8}": append("\\b")
      case "\u{C}": append("\\f")
      case "\n": append("\\n")
      case "\r": append("\\r")
      case "\t": append("\\t")
      case " "..."~": bytes.append(UInt8(truncatingIfNeeded: scalar.value))
      default:
        for unit in String(scalar).utf16 { escape(unit) }
      }
    }
    append("\"")
  }

  private mutating func escape(_ unit: UInt16) {
    append("\\u")
    for shift in [12, 8, 4, 0] as [UInt16] { bytes.append(Array("0123456789ABCDEF".utf8)[Int(unit >> shift & 0xF)]) }
  }

  private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

  /// C's `%.17g`.
  private static func spelling(of number: Double) -> String {
    var buffer = [CChar](repeating: 0, count: 64)
    let length = withVaList([number]) { vsnprintf(&buffer, buffer.count, "%.17g", $0) }
    return String(decoding: buffer[..<Int(length)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
