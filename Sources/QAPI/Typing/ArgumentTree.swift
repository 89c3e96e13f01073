/// Arguments as they were typed, in the order of their names' parts: `file.driver=qcow2` is a member of a member.
enum ArgumentTree {
  case value(String, TypedLine.Form)
  case members([Member])

  struct Member {
    let name: String
    var tree: ArgumentTree
  }

  /// How many parts a name may have.
  private static let deepest = 32

  /// - Parameter words: all `key=value`.
  init(_ words: some Sequence<TypedLine.Word>) throws(ArgumentError) {
    self = .members([])
    for word in words {
      guard let key = word.key else { throw ArgumentError("'\(word.value)' is no argument: those are name=value, or one JSON object") }
      let path = Self.path(key)
      guard path.count <= Self.deepest, path.allSatisfy({ !$0.isEmpty }) else {
        throw ArgumentError("'\(key)' is not the name of an argument")
      }
      try insert(.value(word.value, word.form), at: path[...], key)
    }
  }

  static func path(_ key: String) -> [String] { key.split(separator: ".", omittingEmptySubsequences: false).map(String.init) }

  private mutating func insert(_ value: ArgumentTree, at path: ArraySlice<String>, _ key: String) throws(ArgumentError) {
    guard case .members(var members) = self, let name = path.first else { throw ArgumentError("'\(key)' is given in two ways") }
    if let index = members.firstIndex(where: { $0.name == name }) {
      guard path.count > 1 else { throw ArgumentError("'\(key)' is given twice") }
      try members[index].tree.insert(value, at: path.dropFirst(), key)
    } else if path.count == 1 {
      members.append(Member(name: name, tree: value))
    } else {
      var below = ArgumentTree.members([])
      try below.insert(value, at: path.dropFirst(), key)
      members.append(Member(name: name, tree: below))
    }
    self = .members(members)
  }

  /// What a member is, if this has members.
  subscript(name: String) -> ArgumentTree? {
    guard case .members(let members) = self else { return nil }
    return members.first { $0.name == name }?.tree
  }

  /// The text, if this is a value that is not JSON.
  var text: String? {
    guard case .value(let text, let form) = self, form != .json else { return nil }
    return text
  }
}
