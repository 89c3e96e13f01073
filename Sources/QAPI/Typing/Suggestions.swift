/// What could stand at the end of a line that is being typed.
public struct Suggestions: Equatable, Sendable {
  /// One text that could.
  public struct Suggestion: Equatable, Sendable {
    public let text: String
    /// What goes behind it: a blank, or nothing where more belongs to it.
    public let suffix: String
  }
  /// What has been typed of it.
  public let typed: String
  /// In no order; they need not begin with ``typed``.
  public let candidates: [Suggestion]

  static let none = Suggestions(typed: "", candidates: [])
}

extension Schema {
  /// What could stand at the end of a line: a command, the name of an argument, or its value.
  public func suggestions(for line: String) -> Suggestions {
    guard let typed = try? TypedLine(line) else { return .none }
    var words = typed.words
    let last = typed.endsInWord ? words.popLast() : nil
    guard last?.form ?? .plain == .plain else { return .none }
    guard let command = words.first else {
      // There is no command that has a `=`.
      guard last?.key == nil else { return .none }
      return Suggestions(typed: last?.value ?? "", candidates: commands.map { .init(text: $0.name, suffix: " ") })
    }
    guard command.key == nil, let known = try? self.command(command.value), let tree = try? ArgumentTree(words.dropFirst()) else {
      return .none
    }
    if let last, let key = last.key {
      let type = type(at: ArgumentTree.path(key)[...], known.argumentType, tree)
      return Suggestions(typed: last.value, candidates: type.map(values) ?? [])
    }
    var path = ArgumentTree.path(last?.value ?? "")
    let beginning = path.removeLast()
    guard let (owner, below) = place(path[...], known.argumentType, tree) else { return .none }
    return Suggestions(typed: beginning, candidates: names(owner, below))
  }

  /// The members of a type that have not been given yet.
  private func names(_ type: String, _ tree: ArgumentTree?) -> [Suggestions.Suggestion] {
    switch types[type] {
    case .object(let object):
      return members(of: object) { tree?[$0]?.text }.flatMap { member -> [Suggestions.Suggestion] in
        let given = tree?[member.name]
        // Of an object that has been begun there may be more.
        return continuations(member.name, member.type, takesText: given == nil, hasMembers: given?.text == nil)
      }
    case .array(let element): return continuations("\(Self.nextIndex(tree))", element)
    case .alternate(let branches):
      let structured = branches.filter { branch in
        switch types[branch] {
        case .object, .array: true
        default: false
        }
      }
      return structured.flatMap { names($0, tree) }
    case .builtin, .enumeration, nil: return []
    }
  }

  private func continuations(
    _ name: String, _ type: String, takesText: Bool = true, hasMembers: Bool = true
  ) -> [Suggestions.Suggestion] {
    let endings = [takesText && self.takesText(type) ? "=" : nil, hasMembers && self.hasMembers(type) ? "." : nil]
    return endings.compactMap { $0 }.map { .init(text: name + $0, suffix: "") }
  }

  private static func nextIndex(_ tree: ArgumentTree?) -> Int {
    guard case .members(let members) = tree else { return 0 }
    return members.count
  }

  /// Whether values of the type can be written without a bracket.
  private func takesText(_ type: String) -> Bool {
    switch types[type] {
    case .builtin, .enumeration: true
    case .alternate(let branches):
      branches.contains { if case .builtin = types[$0] { true } else if case .enumeration = types[$0] { true } else { false } }
    case .array, .object, nil: false
    }
  }

  private func hasMembers(_ type: String) -> Bool {
    switch types[type] {
    case .object, .array: true
    case .alternate(let branches):
      branches.contains { if case .object = types[$0] { true } else if case .array = types[$0] { true } else { false } }
    case .builtin, .enumeration, nil: false
    }
  }

  /// What can be written behind the `=` of a value of the type.
  private func values(_ type: String) -> [Suggestions.Suggestion] {
    switch types[type] {
    case .builtin(.boolean): return ["true", "false"].map { .init(text: $0, suffix: " ") }
    case .builtin(.null): return [.init(text: "null", suffix: " ")]
    case .enumeration(let values): return values.map { .init(text: $0.name, suffix: " ") }
    case .alternate(let branches):
      // There are no alternates in alternates; a schema that says so does not lead in circles.
      let simple = branches.filter { branch in if case .alternate = types[branch] { false } else { true } }
      return simple.flatMap { values($0) }
    case .builtin, .array, .object, nil: return []
    }
  }

  private func type(at path: ArraySlice<String>, _ type: String, _ tree: ArgumentTree?) -> String? { place(path, type, tree)?.type }

  /// The type of what a path leads to, and what has been given of it.
  private func place(_ path: ArraySlice<String>, _ type: String, _ tree: ArgumentTree?) -> (type: String, tree: ArgumentTree?)? {
    guard let name = path.first else { return (type, tree) }
    switch types[type] {
    case .object(let object):
      guard let member = members(of: object, tag: { tree?[$0]?.text }).first(where: { $0.name == name }) else { return nil }
      return place(path.dropFirst(), member.type, tree?[name])
    case .array(let element): return Int(name) == nil ? nil : place(path.dropFirst(), element, tree?[name])
    case .alternate(let branches):
      for branch in branches {
        switch types[branch] {
        case .object, .array: if let found = place(path, branch, tree) { return found }
        default: break
        }
      }
      return nil
    case .builtin, .enumeration, nil: return nil
    }
  }
}
