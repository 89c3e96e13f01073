/// What a QEMU says of its commands and events, as `query-qmp-schema` does: a flat list in which types are referred to by
/// names that mean nothing.
public struct Schema: Sendable {
  var types: [String: SchemaType] = [:]
  var commands: [SchemaCommand] = []
  var events: [SchemaEvent] = []
}

/// A type of the schema.
enum SchemaType: Sendable {
  case builtin(Builtin)
  case enumeration([SchemaEnumValue])
  case array(element: String)
  case object(SchemaObject)
  /// One of several types, told apart by the JSON kind of the value.
  case alternate([String])
}

/// The types that are not made of others. QAPI's integers of all sizes are one.
enum Builtin: String, Sendable {
  case string, int, number, boolean, null
  case any = "value"
}

struct SchemaEnumValue: Sendable {
  let name: String
  let features: [String]
}

/// An object, which is a union if it has cases: the value of its member ``tag`` tells which type's members it has too.
struct SchemaObject: Sendable {
  let members: [SchemaMember]
  let tag: String?
  let cases: [(value: String, type: String)]
  let features: [String]

  var isEmpty: Bool { members.isEmpty && cases.isEmpty }
}

struct SchemaMember: Sendable {
  let name: String
  let type: String
  let isOptional: Bool
  /// What stands for an optional member that is not there, as JSON text; nil if the schema does not tell.
  let defaultText: String?
  let features: [String]
}

struct SchemaCommand: Sendable {
  let name: String
  let argumentType: String
  let returnType: String
  let allowsOutOfBand: Bool
  /// Whether success is answered at all.
  let isAnswered: Bool
  let features: [String]
}

struct SchemaEvent: Sendable {
  let name: String
  let dataType: String
  let features: [String]
}
