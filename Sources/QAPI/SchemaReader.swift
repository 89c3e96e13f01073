public import SystemdEvent
public import SystemdJSON

/// Reads the reply to `query-qmp-schema`, entry by entry, so that its reader can do something else in between. Of the quarter of a
/// megabyte that the reply is, no more than an entry is parsed at a time (``SchemaText``).
@EventLoopActor
public struct SchemaReader {
  /// QEMU 11.1 has 1230 entries.
  private static let mostEntries = 65536
  /// Members, values and cases of all entries together; QEMU 11.1 has some 4000.
  private static let mostParts = 1_000_000
  private static let longestName = 256

  /// What has been read so far.
  public private(set) var schema = Schema()
  private var entries = 0
  private var parts = 0

  public init() {}

  /// Reads a whole schema: the array that the reply is. For programs that have nothing else to do meanwhile.
  public static func read(_ reply: JSONVariant) throws(SchemaError) -> Schema {
    var reader = SchemaReader()
    for entry in try entries(of: reply) { try reader.read(entry) }
    return reader.schema
  }

  /// What there is to read.
  static func entries(of reply: JSONVariant) throws(SchemaError) -> [JSONVariant] {
    guard let entries = reply.elements else { throw SchemaError("the schema is not an array") }
    return entries
  }

  /// Reads one element of the array that the schema is, as text.
  public mutating func read(text: ArraySlice<UInt8>) throws(SchemaError) {
    let entry: JSONVariant
    do { entry = try (text + [0]).withUnsafeBufferPointer { bytes throws(JSONError) in try JSONVariant(parsingTerminated: bytes) } } catch {
      throw SchemaError("entry \(entries + 1) of the schema: \(error)")
    }
    try read(entry)
  }

  /// Reads one element of the array that the schema is.
  mutating func read(_ entry: JSONVariant) throws(SchemaError) {
    entries += 1
    guard entries <= Self.mostEntries else { throw SchemaError("the schema has more than \(Self.mostEntries) entries") }
    guard let name = entry["name"]?.string, let kind = entry["meta-type"]?.string else {
      throw SchemaError("entry \(entries) of the schema has no name or no meta-type")
    }
    switch kind {
    case "command":
      try schema.commands.append(
        SchemaCommand(
          name: checked(name), argumentType: string(entry, "arg-type", of: name), returnType: string(entry, "ret-type", of: name),
          allowsOutOfBand: entry["allow-oob"]?.boolean ?? false, isAnswered: entry["success-response"]?.boolean ?? true,
          features: features(entry)))
    case "event":
      try schema.events.append(
        SchemaEvent(name: checked(name), dataType: string(entry, "arg-type", of: name), features: features(entry)))
    default:
      guard schema.types.updateValue(try type(entry, kind, name), forKey: name) == nil else {
        throw SchemaError("the schema has two types \(name)")
      }
    }
  }

  private mutating func type(_ entry: JSONVariant, _ kind: String, _ name: String) throws(SchemaError) -> SchemaType {
    switch kind {
    case "builtin":
      let kind = try string(entry, "json-type", of: name)
      guard let builtin = Builtin(rawValue: kind) else {
        throw SchemaError("the built-in type \(name) is of the unknown JSON type \(kind)")
      }
      return .builtin(builtin)
    case "enum": return .enumeration(try values(entry, name))
    case "array": return .array(element: try string(entry, "element-type", of: name))
    case "object": return .object(try object(entry, name))
    case "alternate":
      var branches: [String] = []
      for member in try list(entry, "members", of: name) { branches.append(try string(member, "type", of: name)) }
      return .alternate(branches)
    default: throw SchemaError("\(name) is of the unknown meta-type \(kind)")
    }
  }

  private mutating func values(_ entry: JSONVariant, _ type: String) throws(SchemaError) -> [SchemaEnumValue] {
    var values: [SchemaEnumValue] = []
    // Before QEMU 6.2 there were bare names.
    for member in try list(entry, entry["members"] == nil ? "values" : "members", of: type) {
      let name = member.string ?? member["name"]?.string
      guard let name else { throw SchemaError("a value of the enum \(type) has no name") }
      values.append(SchemaEnumValue(name: try checked(name), features: features(member)))
    }
    guard Set(values.map(\.name)).count == values.count else { throw SchemaError("the enum \(type) has a value twice") }
    return values
  }

  private mutating func object(_ entry: JSONVariant, _ type: String) throws(SchemaError) -> SchemaObject {
    var members: [SchemaMember] = []
    for member in try list(entry, "members", of: type) {
      let initial = member["default"]
      members.append(
        SchemaMember(
          name: try checked(try string(member, "name", of: type)), type: try string(member, "type", of: type), isOptional: initial != nil,
          defaultText: initial.flatMap { $0.isNull ? nil : $0.text }, features: features(member)))
    }
    guard Set(members.map(\.name)).count == members.count else { throw SchemaError("the object \(type) has a member twice") }
    var cases: [(value: String, type: String)] = []
    for variant in entry["variants"] == nil ? [] : try list(entry, "variants", of: type) {
      cases.append((try checked(try string(variant, "case", of: type)), try string(variant, "type", of: type)))
    }
    guard Set(cases.map(\.value)).count == cases.count else { throw SchemaError("the union \(type) has a case twice") }
    let tag = entry["tag"]?.string
    guard cases.isEmpty || members.contains(where: { $0.name == tag }) else { throw SchemaError("the union \(type) has no tag") }
    return SchemaObject(members: members, tag: cases.isEmpty ? nil : tag, cases: cases, features: features(entry))
  }

  // MARK: parts

  private mutating func list(_ entry: JSONVariant, _ name: String, of owner: String) throws(SchemaError) -> [JSONVariant] {
    guard let list = entry[name]?.elements else { throw SchemaError("\(owner) has no \(name)") }
    parts += list.count
    guard parts <= Self.mostParts else { throw SchemaError("the schema has more than \(Self.mostParts) parts") }
    return list
  }

  private func string(_ entry: JSONVariant, _ name: String, of owner: String) throws(SchemaError) -> String {
    guard let string = entry[name]?.string else { throw SchemaError("\(owner) has no \(name)") }
    return string
  }

  private func features(_ entry: JSONVariant) -> [String] {
    entry["features"]?.elements?.compactMap(\.string).filter(Self.isName) ?? []
  }

  /// A name that may stand in a comment and on the wire.
  private func checked(_ name: String) throws(SchemaError) -> String {
    guard Self.isName(name) else { throw SchemaError("the schema has a name that is none in QAPI") }
    return name
  }

  /// QAPI's names are of letters, digits, '-', '_' and '.'.
  private static func isName(_ name: String) -> Bool {
    !name.isEmpty && name.utf8.count <= longestName && name.utf8.allSatisfy { Names.isAlphanumeric($0) || "-_.".utf8.contains($0) }
  }
}
