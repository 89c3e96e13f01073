import SystemdEvent
import SystemdJSON
import TestSupport

@testable import QAPI

/// Makes values that a schema permits, by the schema alone: it knows nothing of the translation.
@EventLoopActor
struct RandomValue {
  /// From here on, optional members stay away, and arrays empty.
  private static let deepest = 6

  let schema: Schema
  var random: SplitMix

  mutating func value(of type: String, depth: Int = 0) throws -> JSONVariant {
    switch schema.types[type] {
    case .builtin(.string): return .string(string())
    case .builtin(.int): return .integer(integer())
    case .builtin(.number): return try JSONVariant(parsing: ["0", "-1", "2.5", "1e-3", "9007199254740993"].pick(&random))
    case .builtin(.boolean): return .boolean(Bool.random(using: &random))
    case .builtin(.null): return .null
    case .builtin(.any): return any(depth: depth)
    case .enumeration(let values): return .string(values.pick(&random).name)
    case .array(let element):
      let count = depth >= Self.deepest ? 0 : Int.random(in: 0...3, using: &random)
      return .array(try (0..<count).map { _ in try value(of: element, depth: depth + 1) })
    case .alternate(let branches):
      // A branch that goes on for ever is not for deep places.
      let scalar = branches.filter { if case .object? = schema.types[$0] { false } else { true } }
      return try value(of: (depth >= Self.deepest && !scalar.isEmpty ? scalar : branches).pick(&random), depth: depth + 1)
    case .object(let object): return .object(try members(of: object, depth: depth))
    case nil: throw NeverCame(description: "the type \(type)")
    }
  }

  private mutating func members(of object: SchemaObject, depth: Int) throws -> [(String, JSONVariant)] {
    var members: [(String, JSONVariant)] = []
    for member in object.members {
      if member.isOptional, depth >= Self.deepest || Bool.random(using: &random) { continue }
      members.append((member.name, try value(of: member.type, depth: depth + 1)))
    }
    guard let tag = object.tag, let selected = members.first(where: { $0.0 == tag })?.1.string,
      let branch = object.cases.first(where: { $0.value == selected }), case .object(let inner)? = schema.types[branch.type]
    else { return members }
    return members + (try self.members(of: inner, depth: depth))
  }

  private mutating func any(depth: Int) -> JSONVariant {
    switch Int.random(in: 0..<(depth >= Self.deepest ? 5 : 7), using: &random) {
    case 0: .null
    case 1: .boolean(Bool.random(using: &random))
    case 2: .integer(integer())
    case 3: .string(string())
    case 4: (try? JSONVariant(parsing: "0.5")) ?? .null
    case 5: .array((0..<Int.random(in: 0...3, using: &random)).map { _ in any(depth: depth + 1) })
    default: .object([("qom-type", any(depth: depth + 1)), ("a b", .null)])
    }
  }

  private mutating func string() -> String { ["", "a", "qom-type", "3des", "ä🐚\n\"\\", "null", "0"].pick(&random) }

  private mutating func integer() -> Int128 {
    [0, -1, Int128(UInt64.max), Int128(Int64.min), Int128(Int64.max), 1 << 63, (1 << 53) + 1].pick(&random)
  }
}
