import SystemdEvent
import SystemdJSON
import Terminal

/// JSON for people: what is short on one line, what is long on several, and harmless to a terminal.
@EventLoopActor
struct PrettyJSON {
  let looks: Looks
  /// How many characters of JSON are short.
  private static let short = 60

  /// The value's lines, without the last line end.
  func text(_ value: JSONVariant) -> String {
    var text = ""
    append(value, to: &text, indentation: "\n")
    return text
  }

  /// The value on one line, however long.
  func line(_ value: JSONVariant) -> String {
    var text = ""
    append(value, to: &text, indentation: nil)
    return text
  }

  private func append(_ value: JSONVariant, to text: inout String, indentation: String?) {
    switch value.kind {
    case .object:
      let members = (value.members ?? []).map { (looks(harmless(.string($0.name)), .blue) + ": ", $0.value) }
      append("{", "}", members, to: &text, indentation: value.text.utf8.count > Self.short ? indentation : nil)
    case .array:
      let elements = (value.elements ?? []).map { ("", $0) }
      append("[", "]", elements, to: &text, indentation: value.text.utf8.count > Self.short ? indentation : nil)
    case .string: text += looks(harmless(value), .green)
    case .integer, .real: text += looks(value.text, .cyan)
    case .boolean, .null: text += looks(value.text, .magenta)
    }
  }

  private func append(_ open: String, _ close: String, _ items: [(String, JSONVariant)], to text: inout String, indentation: String?) {
    text += open
    let deeper = indentation.map { $0 + "  " }
    for (index, (name, value)) in items.enumerated() {
      if index > 0 { text += deeper == nil ? ", " : "," }
      text += (deeper ?? "") + name
      append(value, to: &text, indentation: deeper)
    }
    text += (items.isEmpty ? "" : indentation ?? "") + close
  }

  private func harmless(_ string: JSONVariant) -> String { string.text.escapedForTerminal(atMost: .max) }
}
