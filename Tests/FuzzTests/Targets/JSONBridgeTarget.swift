import SystemdEvent
import SystemdJSON

/// libsystemd's JSON as Swift values: any text is read or refused; what is taken apart and put together again is equal.
@EventLoopActor
enum JSONBridgeTarget {
  static func run(_ bytes: [UInt8]) throws {
    let parsed: JSONVariant
    do { parsed = try (bytes + [0]).withUnsafeBufferPointer { text in try JSONVariant(parsingTerminated: text) } } catch { return }
    let again: JSONVariant
    let text = parsed.text
    do { again = try JSONVariant(parsing: text) } catch { throw Violation(description: "\(text) is written and not read: \(error)") }
    // libsystemd's way to write real numbers is not exact in the last of its 22 digits.
    if !hasReal(parsed) { try demand(again.text == text, "\(text) is read as \(again.text)") }
    let rebuilt = rebuild(parsed)
    try demand(rebuilt == parsed, "\(parsed.text) becomes \(rebuilt.text)")
  }

  private static func hasReal(_ value: JSONVariant) -> Bool {
    value.kind == .real || (value.elements ?? []).contains(where: hasReal) || (value.members ?? []).contains { hasReal($0.value) }
  }

  private static func rebuild(_ value: JSONVariant) -> JSONVariant {
    switch value.kind {
    case .null: return .null
    case .boolean: return .boolean(value.boolean ?? false)
    case .integer: return value.integer.map { .integer($0) } ?? value
    case .real: return value
    case .string: return .string(value.string ?? "")
    case .array: return .array((value.elements ?? []).map(rebuild))
    case .object: return .object((value.members ?? []).map { ($0.name, rebuild($0.value)) })
    }
  }
}
