import QEMUJSON
import SystemdEvent

/// Reads the members of an object as QAPI's visitor does, and complains in its words.
struct Arguments {
  private let members: QDict
  /// Where the object is, for the complaints: empty, or ending with a dot.
  private let path: String
  private var taken: Set<String> = []

  init(_ members: QDict, path: String = "") {
    self.members = members
    self.path = path
  }

  /// - Returns: the argument, or nil if it may be absent and is.
  @discardableResult
  mutating func take(_ parameter: Parameter) throws(CommandFailure) -> QObject? {
    taken.insert(parameter.name)
    guard let value = members[parameter.name] else {
      if parameter.isOptional { return nil }
      throw CommandFailure("Parameter '\(path)\(parameter.name)' is missing")
    }
    try Self.check(value, parameter.type, name: parameter.name, path: path + parameter.name)
    return value
  }

  mutating func string(_ name: String) throws(CommandFailure) -> String { try take(Parameter(name, .string))?.string ?? "" }

  mutating func enumeration(_ name: String, _ values: [String]) throws(CommandFailure) -> String {
    try take(Parameter(name, .enumeration(values)))?.string ?? ""
  }

  mutating func optionalEnumeration(_ name: String, _ values: [String]) throws(CommandFailure) -> String? {
    try take(Parameter(name, .enumeration(values), optional: true))?.string
  }

  mutating func optionalBoolean(_ name: String) throws(CommandFailure) -> Bool? {
    try take(Parameter(name, .boolean, optional: true))?.boolean
  }

  /// An object, to be read on.
  mutating func object(_ name: String) throws(CommandFailure) -> Arguments {
    Arguments(try take(Parameter(name, .object))?.members ?? QDict(), path: "\(path)\(name).")
  }

  /// Members that nobody has taken are too many.
  func finish() throws(CommandFailure) {
    if let (name, _) = members.ordered.first(where: { !taken.contains($0.name) }) {
      throw CommandFailure("Parameter '\(path)\(name)' is unexpected")
    }
  }

  private static func check(_ value: QObject, _ type: ParameterType, name: String, path: String) throws(CommandFailure) {
    func mustBe(_ holds: Bool, _ expected: String) throws(CommandFailure) {
      guard holds else { throw CommandFailure("Invalid parameter type for '\(path)', expected: \(expected)") }
    }
    switch type {
    case .any: break
    case .string: try mustBe(value.string != nil, "string")
    case .boolean: try mustBe(value.boolean != nil, "boolean")
    case .integer: try mustBe(value.integer != nil, "integer")
    case .object: try mustBe(value.members != nil, "object")
    case .array(let element):
      try mustBe(value.elements != nil, "array")
      for (index, item) in (value.elements ?? []).enumerated() {
        // An element has no name, which QEMU prints as "null".
        try check(item, element, name: "null", path: "\(path)[\(index)]")
      }
    case .enumeration(let values):
      try mustBe(value.string != nil, "string")
      let word = value.string ?? ""
      guard values.contains(word) else { throw CommandFailure("Parameter '\(name)' does not accept value '\(word)'") }
    }
  }
}
