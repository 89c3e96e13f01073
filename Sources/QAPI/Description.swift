/// A type with all that it is made of, as far as it was looked into.
public indirect enum TypeDescription: Sendable {
  /// One of JSON's own types.
  case builtin(String)
  case enumeration([String])
  case array(TypeDescription)
  /// If it is a union, the value of the member `tag` tells which other members there are.
  case object([MemberDescription], tag: String?, cases: [CaseDescription])
  /// One of several types, told apart by the JSON kind of the value.
  case alternate([TypeDescription])
  /// An object that was not looked into.
  case deeper
}

/// A member of an object.
public struct MemberDescription: Sendable {
  public let name: String
  public let type: TypeDescription
  public let isOptional: Bool
  /// Such as `deprecated` and `unstable`.
  public let features: [String]
}

/// What a union has besides, for one value of its tag.
public struct CaseDescription: Sendable {
  public let value: String
  public let members: [MemberDescription]
}

/// A command or an event of QMP.
public struct EntryDescription: Sendable {
  public let name: String
  /// A command's arguments, or an event's data.
  public let parameters: TypeDescription
  /// What a command returns; nil for events.
  public let result: TypeDescription?
  public let allowsOutOfBand: Bool
  /// Such as `deprecated` and `unstable`.
  public let features: [String]
}

extension Schema {
  /// The names of all commands and of all events, in QEMU's order.
  public var names: (commands: [String], events: [String]) { (commands.map(\.name), events.map(\.name)) }

  /// A command or an event; nil if there is none of that name.
  ///
  /// - Parameter depth: how far objects in objects are looked into; 1 is a command's arguments alone.
  public func description(of name: String, depth: Int) -> EntryDescription? {
    var describer = Describer(schema: self)
    if let command = commands.first(where: { $0.name == name }) {
      return EntryDescription(
        name: name, parameters: describer.type(command.argumentType, depth), result: describer.type(command.returnType, depth),
        allowsOutOfBand: command.allowsOutOfBand, features: command.features)
    }
    return events.first { $0.name == name }.map { event in
      EntryDescription(
        name: name, parameters: describer.type(event.dataType, depth), result: nil, allowsOutOfBand: false, features: event.features)
    }
  }
}

/// Follows references from type to type.
private struct Describer {
  /// Types refer to each other in circles and in many ways: this many members are described, and no more.
  private static let mostMembers = 20_000

  let schema: Schema
  private var members = 0

  init(schema: Schema) { self.schema = schema }

  mutating func type(_ name: String, _ depth: Int) -> TypeDescription {
    switch schema.types[name] {
    case .builtin(let builtin): return .builtin(builtin == .any ? "any" : builtin.rawValue)
    case .enumeration(let values): return .enumeration(values.map(\.name))
    // Arrays of arrays, and alternates of alternates, count too: there are circles of them.
    case .array(let element): return depth < 0 ? .deeper : .array(type(element, depth - 1))
    case .alternate(let branches): return depth < 0 ? .deeper : .alternate(branches.map { type($0, depth - 1) })
    case .object(let object):
      guard depth > 0 || object.isEmpty, members < Self.mostMembers else { return .deeper }
      let cases = object.cases.map { value, type in
        CaseDescription(value: value, members: self.members(of: type, depth - 1))
      }
      return .object(object.members.map { member($0, depth - 1) }, tag: object.tag, cases: cases)
    case nil: return .deeper
    }
  }

  private mutating func member(_ member: SchemaMember, _ depth: Int) -> MemberDescription {
    members += 1
    return MemberDescription(
      name: member.name, type: type(member.type, depth), isOptional: member.isOptional, features: member.features)
  }

  private mutating func members(of type: String, _ depth: Int) -> [MemberDescription] {
    guard case .object(let object) = schema.types[type], members < Self.mostMembers else { return [] }
    return object.members.map { member($0, depth) }
  }
}
