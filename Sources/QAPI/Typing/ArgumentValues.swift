public import SystemdJSON
import SystemdEvent

extension Schema {
  /// The command of that name.
  ///
  /// - Throws: ``ArgumentError``, with the name that may have been meant.
  func command(_ name: String) throws(ArgumentError) -> SchemaCommand {
    if let command = commands.first(where: { $0.name == name }) { return command }
    throw ArgumentError("there is no command '\(name)'")
  }

  /// The arguments of a command, from what was typed behind its name: nothing, any number of `key=value`, or one JSON object.
  ///
  /// - Returns: nil for none.
  /// - Throws: ``ArgumentError`` for what the command does not take, and for what is missing.
  @EventLoopActor
  public func arguments(of command: String, from words: some Collection<TypedLine.Word>) throws(ArgumentError) -> JSONVariant? {
    let command = try self.command(command)
    let typing = ArgumentTyping(schema: self, command: command)
    if words.count == 1, let word = words.first, word.key == nil, word.form == .json {
      let value = try ArgumentTyping.parse(word.value, "the arguments")
      try typing.check(value)
      return value
    }
    let value = try typing.value(of: ArgumentTree(words))
    return value.members?.isEmpty ?? true ? nil : value
  }

  /// Whether a command that is whole JSON is what QEMU takes, as far as the schema tells.
  ///
  /// - Throws: ``ArgumentError``.
  @EventLoopActor
  public func check(_ message: JSONVariant) throws(ArgumentError) {
    guard let name = (message["execute"] ?? message["exec-oob"])?.string else {
      throw ArgumentError("it has neither 'execute' nor 'exec-oob'")
    }
    try ArgumentTyping(schema: self, command: command(name)).check(message["arguments"] ?? .object([:]))
  }
}

/// Gives what was typed for one command the types that its schema asks for.
@EventLoopActor
struct ArgumentTyping {
  let schema: Schema
  let command: SchemaCommand

  /// How deep a value may be.
  private static let deepest = 128
  /// Commands that take more than their schema tells: the properties of a device are known to the device.
  nonisolated static let openCommands: Set<String> = ["device_add"]

  private var isOpen: Bool { Self.openCommands.contains(command.name) }

  func value(of tree: ArgumentTree) throws(ArgumentError) -> JSONVariant { try value(tree, command.argumentType, []) }

  func check(_ value: JSONVariant) throws(ArgumentError) { try check(value, command.argumentType, []) }

  // MARK: what was typed

  private func value(_ tree: ArgumentTree, _ type: String, _ path: [String]) throws(ArgumentError) -> JSONVariant {
    if case .value(let text, .json) = tree {
      // A list of strings, say, where a string is expected that happens to begin with a bracket.
      if case .builtin(.string) = schema.types[type] { return .string(text) }
      let value = try Self.parse(text, name(path))
      try check(value, type, path)
      return value
    }
    switch schema.types[type] {
    case .builtin(let builtin): return try value(tree, builtin, path)
    case .enumeration(let values): return try enumerated(tree, values, path)
    case .array(let element): return try list(tree, element, path)
    case .object(let object): return try self.object(tree, object, path)
    case .alternate(let branches): return try alternate(tree, branches, path)
    case nil: throw ArgumentError("the schema does not tell what \(name(path)) is")
    }
  }

  private func value(_ tree: ArgumentTree, _ builtin: Builtin, _ path: [String]) throws(ArgumentError) -> JSONVariant {
    if case .members(let members) = tree, builtin == .any {
      var values: [(String, JSONVariant)] = []
      for member in members { values.append((member.name, try value(member.tree, builtin, path + [member.name]))) }
      return .object(values)
    }
    guard case .value(let text, let form) = tree else { throw expected(schema.words(for: builtin), path, nil) }
    switch builtin {
    case .string: return .string(text)
    case .int: if let number = Self.integer(text) { return number }
    case .number: if let number = try? JSONVariant(parsing: text), number.kind == .integer || number.kind == .real { return number }
    case .boolean: if let value = Self.truth[text] { return .boolean(value) }
    case .null: if text == "null" { return .null }
    case .any:
      guard form == .plain, let value = try? JSONVariant(parsing: text), !value.isObject, !value.isArray else { return .string(text) }
      return value
    }
    throw expected(schema.words(for: builtin), path, text)
  }

  /// What QEMU's own command line takes for truth values.
  private static let truth = ["true": true, "on": true, "yes": true, "false": false, "off": false, "no": false]

  /// Decimal or hexadecimal, with a unit of QEMU's: powers of 1024.
  private static func integer(_ text: String) -> JSONVariant? {
    if text.hasPrefix("0x") { return UInt64(text.dropFirst(2), radix: 16).map { .integer($0) } }
    if let number = Int64(text) { return .integer(number) }
    if let number = UInt64(text) { return .integer(number) }
    guard let unit = text.last, let power = Array("KMGTPE").firstIndex(of: Character(unit.uppercased())) else { return nil }
    guard let number = UInt64(text.dropLast()), case let scaled = number.multipliedReportingOverflow(by: 1 << UInt64(10 * (power + 1))),
      !scaled.overflow
    else { return nil }
    return .integer(scaled.partialValue)
  }

  private func enumerated(_ tree: ArgumentTree, _ values: [SchemaEnumValue], _ path: [String]) throws(ArgumentError) -> JSONVariant {
    guard let text = tree.text, values.contains(where: { $0.name == text }) else {
      throw expected(Schema.words(for: values), path, tree.text)
    }
    return .string(text)
  }

  private func list(_ tree: ArgumentTree, _ element: String, _ path: [String]) throws(ArgumentError) -> JSONVariant {
    guard case .members(let members) = tree else {
      throw ArgumentError("\(name(path)) is a list: \(path.joined(separator: "."))=[…], or \(path.joined(separator: ".")).0=…")
    }
    var elements: [JSONVariant?] = Array(repeating: nil, count: members.count)
    for member in members {
      guard let number = Int(member.name), elements.indices.contains(number) else {
        throw ArgumentError("\(name(path)) is a list, whose elements are .0 to .\(members.count - 1) and not .\(member.name)")
      }
      elements[number] = try value(member.tree, element, path + [member.name])
    }
    return .array(elements.compactMap { $0 })
  }

  private func object(_ tree: ArgumentTree, _ object: SchemaObject, _ path: [String]) throws(ArgumentError) -> JSONVariant {
    guard case .members(let given) = tree else {
      throw ArgumentError("\(name(path)) is an object: \(path.joined(separator: "."))={…}, or \(path.joined(separator: ".")).NAME=…")
    }
    let known = try members(of: object, path) { tree[$0]?.text }
    var values: [(String, JSONVariant)] = []
    for argument in given {
      let place = path + [argument.name]
      if let member = known.first(where: { $0.name == argument.name }) {
        values.append((argument.name, try value(argument.tree, member.type, place)))
      } else if isOpen, path.isEmpty {
        values.append((argument.name, try value(argument.tree, .any, place)))
      } else {
        throw unknown(argument.name, path, known)
      }
    }
    try requireAll(known, path) { tree[$0] != nil }
    return .object(values)
  }

  private func alternate(_ tree: ArgumentTree, _ branches: [String], _ path: [String]) throws(ArgumentError) -> JSONVariant {
    if case .members = tree {
      let structured = branches.first { branch in
        switch schema.types[branch] {
        case .object, .array: true
        default: false
        }
      }
      guard let structured else { throw expected(schema.words(forBranches: branches), path, nil) }
      return try value(tree, structured, path)
    }
    // A text that can be something else than a string is that, unless it is in quotes.
    guard case .value(let text, let form) = tree else { throw expected(schema.words(forBranches: branches), path, nil) }
    let isString = { (branch: String) in if case .builtin(.string) = schema.types[branch] { true } else { false } }
    for branch in branches where !isString(branch) && form == .plain {
      switch schema.types[branch] {
      case .builtin, .enumeration: if let value = try? value(tree, branch, path) { return value }
      default: break
      }
    }
    guard branches.contains(where: isString) else { throw expected(schema.words(forBranches: branches), path, text) }
    return .string(text)
  }

  // MARK: JSON

  static func parse(_ text: String, _ name: String) throws(ArgumentError) -> JSONVariant {
    do throws(JSONError) { return try JSONVariant(parsing: text) } catch { throw ArgumentError("\(name): \(error)") }
  }

  private func check(_ value: JSONVariant, _ type: String, _ path: [String]) throws(ArgumentError) {
    guard path.count <= Self.deepest else { throw ArgumentError("the arguments are more than \(Self.deepest) levels deep") }
    switch schema.types[type] {
    case .builtin(let builtin):
      guard builtin.admits(value.kind) else { throw expected(schema.words(for: builtin), path, value.text) }
    case .enumeration(let values):
      guard let name = value.string, values.contains(where: { $0.name == name }) else {
        throw expected(Schema.words(for: values), path, value.text)
      }
    case .array(let element):
      guard let elements = value.elements else { throw expected("a list", path, value.text) }
      for (index, value) in elements.enumerated() { try check(value, element, path + ["\(index)"]) }
    case .object(let object): try check(value, object, path)
    case .alternate(let branches):
      guard let branch = branches.first(where: { schema.admits($0, value.kind) }) else {
        throw expected(schema.words(forBranches: branches), path, value.text)
      }
      try check(value, branch, path)
    case nil: throw ArgumentError("the schema does not tell what \(name(path)) is")
    }
  }

  private func check(_ value: JSONVariant, _ object: SchemaObject, _ path: [String]) throws(ArgumentError) {
    guard let given = value.members else { throw expected("an object", path, value.text) }
    let known = try members(of: object, path) { value[$0]?.string }
    for (name, value) in given {
      if let member = known.first(where: { $0.name == name }) {
        try check(value, member.type, path + [name])
      } else if !isOpen || !path.isEmpty {
        throw unknown(name, path, known)
      }
    }
    try requireAll(known, path) { value[$0] != nil }
  }

  // MARK: members

  /// What an object can have, of which the value of the tag decides.
  private func members(
    of object: SchemaObject, _ path: [String], tag: (String) -> String?
  ) throws(ArgumentError) -> [SchemaMember] {
    if let name = object.tag, let value = tag(name), let member = object.members.first(where: { $0.name == name }),
      case .enumeration(let values) = schema.types[member.type], !values.contains(where: { $0.name == value })
    {
      throw expected(Schema.words(for: values), path + [name], value)
    }
    return schema.members(of: object, tag: tag)
  }

  private func requireAll(_ known: [SchemaMember], _ path: [String], isGiven: (String) -> Bool) throws(ArgumentError) {
    let missing = known.filter { !$0.isOptional && !isGiven($0.name) }
    guard let first = missing.first else { return }
    let names = missing.prefix(8).map { "'\((path + [$0.name]).joined(separator: "."))'" }.joined(separator: ", ")
    let values =
      if missing.count == 1, case .enumeration(let values) = schema.types[first.type] { ": \(Schema.words(for: values))" } else { "" }
    throw ArgumentError("\(command.name) needs \(names)\(values)")
  }

  // MARK: words

  private func name(_ path: [String]) -> String { path.isEmpty ? "what stands behind \(command.name)" : "'\(path.joined(separator: "."))'" }

  private func expected(_ what: String, _ path: [String], _ found: String?) -> ArgumentError {
    ArgumentError("\(name(path)) is \(what)" + (found.map { ", not '\($0.prefix(100))'" } ?? ""))
  }

  private func unknown(_ member: String, _ path: [String], _ known: [SchemaMember]) -> ArgumentError {
    let owner = path.isEmpty ? command.name : name(path)
    guard !known.isEmpty else { return ArgumentError("\(owner) takes no arguments, and no '\(member)'") }
    let names = known.prefix(24).map(\.name).joined(separator: ", ")
    return ArgumentError("\(owner) has no '\(member)'; it has \(names)\(known.count > 24 ? ", …" : "")")
  }
}

extension Builtin {
  fileprivate func admits(_ kind: JSONVariant.Kind) -> Bool {
    switch self {
    case .string: kind == .string
    case .int: kind == .integer
    case .number: kind == .integer || kind == .real
    case .boolean: kind == .boolean
    case .null: kind == .null
    case .any: true
    }
  }
}

extension Schema {
  /// Whether a branch of an alternate is for values of a kind.
  fileprivate func admits(_ branch: String, _ kind: JSONVariant.Kind) -> Bool {
    switch types[branch] {
    case .builtin(let builtin): builtin.admits(kind)
    case .enumeration: kind == .string
    case .array: kind == .array
    case .object: kind == .object
    case .alternate, nil: false
    }
  }

  /// How deep unions are followed.
  private static let deepestUnion = 8

  /// All members of an object: its own, and those that the value of its tag adds.
  ///
  /// - Parameter tag: gives the value of a member.
  func members(of object: SchemaObject, depth: Int = 0, tag: (String) -> String?) -> [SchemaMember] {
    guard depth < Self.deepestUnion, let name = object.tag, let value = tag(name),
      let type = object.cases.first(where: { $0.value == value })?.type,
      case .object(let added) = types[type]
    else { return object.members }
    return object.members + members(of: added, depth: depth + 1, tag: tag)
  }
}
