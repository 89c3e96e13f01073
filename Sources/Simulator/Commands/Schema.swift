import QEMUJSON
import SystemdEvent

/// Makes the reply to query-qmp-schema: what the simulator has, in QEMU's form, and so much more that the reply is as long as a real
/// one, which is the longest that clients meet.
struct Schema {
  /// QEMU 11.1's has 248 KB.
  private static let leastLength = 220_000

  private var entries: [QObject] = []
  private var arrays: Set<String> = []
  private var numbers: [ParameterType: String] = [:]
  private var lastNumber = 0

  @EventLoopActor
  static func make(_ commands: [Command], events: [String]) -> QObject {
    var schema = Schema()
    schema.entries.append(["name": "0", "members": [], "meta-type": "object"])
    for command in commands { schema.add(command) }
    for event in events { schema.entries.append(["name": .string(event), "meta-type": "event", "arg-type": "0"]) }
    let builtins = [("str", "string"), ("int", "int"), ("number", "number"), ("bool", "boolean"), ("null", "null"), ("any", "value")]
    for (name, type) in builtins {
      schema.entries.append(["name": .string(name), "json-type": .string(type), "meta-type": "builtin"])
    }
    schema.fill()
    return .array(schema.entries)
  }

  @EventLoopActor
  private mutating func add(_ command: Command) {
    var entry = QDict([("name", .string(command.name)), ("meta-type", "command"), ("ret-type", .string(name(of: command.returns)))])
    entry["arg-type"] = .string(command.parameters.isEmpty ? "0" : object(command.parameters))
    if command.allowsOutOfBand { entry["allow-oob"] = true }
    entries.append(.object(entry))
  }

  /// An object type with these members.
  private mutating func object(_ parameters: [Parameter]) -> String {
    let number = nextNumber()
    var members: [QObject] = []
    for parameter in parameters {
      var member = QDict([("name", .string(parameter.name)), ("type", .string(name(of: parameter.type)))])
      if parameter.isOptional { member["default"] = .null }
      members.append(.object(member))
    }
    entries.append(["name": .string(number), "members": .array(members), "meta-type": "object"])
    return number
  }

  private mutating func name(of type: ParameterType) -> String {
    switch type {
    case .string: return "str"
    case .boolean: return "bool"
    case .integer: return "int"
    case .any: return "any"
    case .object: return "0"
    case .array(let element):
      let element = name(of: element)
      if arrays.insert(element).inserted {
        entries.append(["name": .string("[\(element)]"), "element-type": .string(element), "meta-type": "array"])
      }
      return "[\(element)]"
    case .enumeration(let values):
      if let known = numbers[type] { return known }
      let number = nextNumber()
      numbers[type] = number
      entries.append([
        "name": .string(number), "members": .array(values.map { ["name": .string($0)] }), "meta-type": "enum",
        "values": .array(values.map(QObject.string)),
      ])
      return number
    }
  }

  private mutating func nextNumber() -> String {
    lastNumber += 1
    return String(lastNumber)
  }

  /// Adds types that no command uses.
  private mutating func fill() {
    var length = QObject.array(entries).text.utf8.count
    let parameters = (1...20).map { Parameter("simulated-member-\($0)", [.string, .integer, .boolean][$0 % 3], optional: $0 > 2) }
    while length < Self.leastLength {
      _ = object(parameters)
      length += 2 + (entries.last?.text.utf8.count ?? 0)
    }
  }
}
