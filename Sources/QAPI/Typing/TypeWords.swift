extension Schema {
  /// How many values of an enum are told.
  private static let mostValues = 40

  func words(for builtin: Builtin) -> String {
    switch builtin {
    case .string: "a string"
    case .int: "an integer"
    case .number: "a number"
    case .boolean: "true or false"
    case .null: "null"
    case .any: "any JSON"
    }
  }

  static func words(for values: [SchemaEnumValue]) -> String {
    let names = values.prefix(mostValues).map(\.name)
    guard names.count > 1 else { return names.first ?? "nothing that there is" }
    return "one of \(names.joined(separator: ", "))\(values.count > mostValues ? ", …" : "")"
  }

  func words(forBranches branches: [String]) -> String { branches.map { words(forType: $0) }.joined(separator: ", or ") }

  /// What a type is, in a few words for a person.
  func words(forType type: String, depth: Int = 0) -> String {
    switch types[type] {
    case .builtin(let builtin): words(for: builtin)
    case .enumeration(let values): Self.words(for: values)
    // The types may contain themselves.
    case .array(let element): depth < 4 ? "a list, each \(words(forType: element, depth: depth + 1))" : "a list"
    case .object(let object):
      object.isEmpty
        ? "an empty object" : "an object of \(object.members.map(\.name).joined(separator: ", "))\(object.cases.isEmpty ? "" : ", …")"
    case .alternate(let branches) where depth < 4:
      branches.map { words(forType: $0, depth: depth + 1) }.joined(separator: ", or ")
    case .alternate, nil: "one of several types"
    }
  }
}

extension Schema {
  /// What a command takes and gives, for a person; with these arguments, of which a union depends.
  ///
  /// - Returns: lines of names and features, whose text is QEMU's.
  /// - Throws: ``ArgumentError`` if there is no such command.
  public func description(of name: String, with words: some Sequence<TypedLine.Word> = []) throws(ArgumentError) -> String {
    let command = try self.command(name)
    let tree = try ArgumentTree(words)
    var lines = [
      ([command.name] + featureNotes(command.features) + (command.allowsOutOfBand ? ["can be executed out of band"] : [])).joined(
        separator: " - ")
    ]
    lines += memberLines(command.argumentType, tree, heading: "arguments:")
    if ArgumentTyping.openCommands.contains(name) { lines.append("  and any property of the device, typed as JSON would be") }
    let returns = memberLines(command.returnType, .members([]), heading: "returns an object:")
    if !command.isAnswered {
      lines.append("is not answered when it succeeds")
    } else if !returns.isEmpty {
      lines += returns
    } else if case .object = types[command.returnType] {
      lines.append("returns nothing")
    } else {
      lines.append("returns \(self.words(forType: command.returnType))")
    }
    return lines.joined(separator: "\n")
  }

  /// One line for each member of an object.
  private func memberLines(_ type: String, _ tree: ArgumentTree, heading: String) -> [String] {
    guard case .object(let object) = types[type], !object.isEmpty else { return [] }
    let members = members(of: object) { tree[$0]?.text }
    let width = members.map(\.name.count).max() ?? 0
    var lines = [heading]
    for member in members {
      var notes = [words(forType: member.type)]
      if member.isOptional { notes.append(member.defaultText.map { "optional, default \($0)" } ?? "optional") }
      if member.name == object.tag, tree[member.name] == nil { notes.append("decides what else there is") }
      notes += featureNotes(member.features)
      lines.append("  \(member.name)\(String(repeating: " ", count: width - member.name.count))  \(notes.joined(separator: "; "))")
    }
    return lines
  }
}
