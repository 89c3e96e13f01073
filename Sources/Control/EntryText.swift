public import QAPI
import SystemdEvent
public import SystemdJSON

/// A command or an event of QMP, as text for a person.
public struct EntryText: Sendable {
  private let style: Style
  private var lines: [String] = []

  /// The text, with the end of its last line.
  public static func text(of entry: EntryDescription, _ style: Style) -> String {
    var text = EntryText(style: style)
    let notes = (entry.allowsOutOfBand ? ["may be executed out-of-band"] : []) + entry.features
    text.lines.append(style(entry.name, .heading) + (notes.isEmpty ? "" : style(" (\(notes.joined(separator: ", ")))")))
    text.add(entry.result == nil ? "Data" : "Arguments", entry.parameters)
    if let result = entry.result { text.add("Returns", result) }
    return text.lines.joined(separator: "\n") + "\n"
  }

  private init(style: Style) { self.style = style }

  private mutating func add(_ title: String, _ type: TypeDescription) {
    lines.append("")
    if case .object(let members, _, let cases) = type {
      lines.append("\(title):\(members.isEmpty && cases.isEmpty ? " none" : "")")
    } else {
      lines.append("\(title): \(style(Self.words(for: type)))")
    }
    addParts(of: type, indentation: 2)
  }

  /// The members of an object, or of the objects that a type is made of.
  private mutating func addParts(of type: TypeDescription, indentation: Int) {
    switch type {
    case .object(let members, let tag, let cases):
      add(members, indentation)
      for union in cases where !union.members.isEmpty {
        lines.append(String(repeating: " ", count: indentation) + style("with \(tag ?? "?")=\(union.value):", .faint))
        add(union.members, indentation + 2)
      }
    case .array(let element): addParts(of: element, indentation: indentation)
    case .alternate(let branches): for branch in branches { addParts(of: branch, indentation: indentation) }
    case .builtin, .enumeration, .deeper: break
    }
  }

  private mutating func add(_ members: [MemberDescription], _ indentation: Int) {
    let width = members.lazy.map(\.name.count).max() ?? 0
    for member in members {
      let padding = String(repeating: " ", count: width - member.name.count)
      let notes = (member.isOptional ? ["optional"] : []) + member.features
      let words = ([Self.words(for: member.type)] + notes).joined(separator: ", ")
      lines.append(String(repeating: " ", count: indentation) + style(member.name) + padding + "  " + style(words))
      addParts(of: member.type, indentation: indentation + 2)
    }
  }

  private static func words(for type: TypeDescription) -> String {
    switch type {
    case .builtin(let name): name
    case .enumeration(let values): values.joined(separator: " | ")
    case .array(let element): "array of \(words(for: element))"
    case .object(let members, _, let cases): members.isEmpty && cases.isEmpty ? "empty object" : "object"
    case .alternate(let branches): "either " + branches.map { words(for: $0) }.joined(separator: " or ")
    case .deeper: "object …"
    }
  }
}

extension EntryDescription {
  /// As JSON.
  @EventLoopActor public var json: JSONVariant {
    .object([
      "name": .string(name), "kind": .string(result == nil ? "event" : "command"),
      (result == nil ? "data" : "arguments"): parameters.json, "returns": result?.json,
      "oob": result == nil ? nil : .boolean(allowsOutOfBand), "features": .array(features.map { .string($0) }),
    ])
  }
}

extension TypeDescription {
  @EventLoopActor fileprivate var json: JSONVariant {
    switch self {
    case .builtin(let name): .object([("type", .string(name))])
    case .enumeration(let values): .object([("type", .string("enum")), ("values", .array(values.map { .string($0) }))])
    case .array(let element): .object([("type", .string("array")), ("of", element.json)])
    case .alternate(let branches): .object([("type", .string("alternate")), ("of", .array(branches.map(\.json)))])
    case .deeper: .object([("type", .string("object"))])
    case .object(let members, let tag, let cases):
      .object([
        "type": .string("object"), "members": .array(members.map(\.json)), "tag": tag.map { .string($0) },
        "cases": cases.isEmpty
          ? nil
          : .array(cases.map { .object([("value", .string($0.value)), ("members", .array($0.members.map(\.json)))]) }),
      ])
    }
  }
}

extension MemberDescription {
  @EventLoopActor fileprivate var json: JSONVariant {
    .object([
      ("name", .string(name)), ("type", type.json), ("optional", .boolean(isOptional)),
      ("features", .array(features.map { .string($0) })),
    ])
  }
}
