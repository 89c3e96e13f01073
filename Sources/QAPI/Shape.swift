/// How values of one type look in QAPI and in Varlink, and become one another.
enum Shape: Sendable {
  case string, integer, number, boolean
  /// In Varlink `true`: its types have no null.
  case null
  /// Any JSON value. In Varlink a struct with one field per JSON kind.
  case any
  /// An object without members.
  case empty
  indirect case array(Shape)
  /// An index into ``Translation/enumerations``.
  case enumeration(Int)
  /// An index into ``Translation/structures``.
  case structure(Int)
  /// An index into ``Translation/alternates``.
  case alternate(Int)
  /// An array as an element of an array, which sd-varlink's IDL cannot spell: a struct with one field. An index into
  /// ``Translation/wrappers``.
  case wrapper(Int)
}

// Names are looked for one by one: there are few of most, translation is not what a command's time goes into, and tables of some
// thousand names would be half of the daemon's memory.

/// An enum: names in QAPI and in Varlink.
struct Enumeration: Sendable {
  /// The type's name in Varlink; nil for one of less than two values, which is a string there.
  let name: String?
  let values: [(qapi: String, varlink: String)]
  var notes: [[String]]

  init(name: String?, values: [SchemaEnumValue]) {
    self.name = name
    var scope = NameScope()
    let pairs = values.map { value in
      let varlink = scope.claim(Names.field(value.name))
      // One string for both where it can be.
      return (qapi: varlink == value.name ? varlink : value.name, varlink: varlink)
    }
    self.values = pairs
    notes = zip(values, pairs).map { value, pair in
      (Names.isObvious(pair.varlink, for: pair.qapi) ? [] : ["In QEMU: \(pair.qapi)"]) + featureNotes(value.features)
    }
  }

  func varlink(_ qapi: String) -> String? { values.first { $0.qapi == qapi }?.varlink }
  func qapi(_ varlink: String) -> String? { values.first { $0.varlink == varlink }?.qapi }
}

/// One field of a struct, of a method's input or of its output.
struct Field: Sendable {
  let name: String
  let shape: Shape
  let isNullable: Bool
  var notes: [String]
}

/// An object or a union: in Varlink one flat struct.
struct Structure: Sendable {
  /// The type's name in Varlink; nil for what is the input or output of a method.
  let name: String?
  var fields: [Field] = []
  /// What a value may have depends on its tags; the first layer is what it always has.
  var layers: [Layer] = []

  func field(_ name: String) -> Int? { fields.firstIndex { $0.name == name } }
}

/// The members that an object has in one case of a union, or in any.
struct Layer: Sendable {
  struct Member: Sendable {
    let qapi: String
    let field: Int
    let isOptional: Bool
  }
  var members: [Member] = []
  /// The member that tells which layer is added; its values that stand for none are not among the cases.
  var tag: (member: Int, cases: [(value: String, layer: Int)])?

  /// The field of a member.
  func field(_ qapi: String) -> Int? { members.first { $0.qapi == qapi }?.field }

  /// The layer that a value of the tag adds.
  func next(_ value: String) -> Int? { tag?.cases.first { $0.value == value }?.layer }
}

/// One of several types, in Varlink a struct with one field for each, named after the JSON kind.
struct Alternate: Sendable {
  let name: String
  var branches: [(kind: JSONKind, shape: Shape)] = []
}

/// An array inside an array.
struct Wrapper: Sendable {
  static let field = "items"
  let name: String
  var element: Shape = .any
}

/// The JSON kinds, as the fields of alternates and of ``Shape/any`` are called.
enum JSONKind: String, Sendable, CaseIterable {
  case bool, int, float, string, array, object, null
}

/// What features mean to who reads the interface.
func featureNotes(_ features: [String]) -> [String] {
  features.map { feature in
    switch feature {
    case "deprecated": "Deprecated"
    case "unstable": "Unstable: may change or go in any version of QEMU"
    default: "Feature \(feature)"
    }
  }
}
