/// Walks a schema and makes a ``Translation`` of it.
///
/// QEMU's names of types say nothing, so a type is called after the place where it is first met on a walk in breadth from the
/// commands, then the events, each in the order of their names: the element of what `query-block` returns is
/// `QueryBlockEntry`, and its member `inserted` is a `QueryBlockEntryInserted`. Being the same for the same schema, and short
/// for what is used high up, such names stay when QEMU gets new commands that sort behind.
struct Translator {
  /// The names that the interface has besides those of the schema.
  static let ownSymbols = ["Execute", "SubscribeEvents", "Timestamp", "Any", "QMPError", "Refused", "BadReply"]
  /// What commands that take a descriptor take it by: SCM_RIGHTS, which the schema does not mention.
  private static let descriptorCommands: Set = ["getfd", "add-fd"]
  static let descriptorParameter = "fileDescriptorIndex"
  static let eventParameters = ["event", "timestamp"]
  /// The most fields that all types together may have; QEMU 11.1 has some 3000.
  private static let mostFields = 200_000

  /// How much of a path is used for a name.
  private static let longestSymbol = 120

  let schema: Schema
  private var translation: Translation
  private var symbols = NameScope(separator: "")
  private var shapes: [String: Shape] = [:]
  private var wrapperIndices: [String: Int] = [:]
  /// Types that have a name and no contents yet, in the order in which they were met.
  private var named: [Definition] = []
  private var nextNamed = 0
  private var fieldCount = 0

  private enum Definition {
    case structure(Int, SchemaObject)
    case alternate(Int, [String])
    case wrapper(Int, element: String)
  }

  init(_ schema: Schema, interface: String) {
    self.schema = schema
    translation = Translation(interface: interface)
    for symbol in Self.ownSymbols { _ = symbols.claim(symbol) }
  }

  mutating func translate() throws(SchemaError) -> Translation {
    let commands = schema.commands.sorted { $0.name < $1.name }
    let events = schema.events.sorted { $0.name < $1.name }
    try checkNames(commands.map(\.name), "command")
    try checkNames(events.map(\.name), "event")
    // Methods first: a type that would be called like one gives way.
    let methods = commands.map { symbols.claim(Names.symbol($0.name)) }
    for (command, method) in zip(commands, methods) { try add(command, method) }
    var fields = NameScope()
    for parameter in Self.eventParameters { _ = fields.claim(parameter) }
    for event in events { try add(event, field: fields.claim(Names.event(event.name))) }
    while nextNamed < named.count {
      try define(named[nextNamed])
      nextNamed += 1
    }
    return translation
  }

  private func checkNames(_ names: [String], _ kind: String) throws(SchemaError) {
    for (one, other) in zip(names, names.dropFirst()) where one == other { throw SchemaError("the schema has the \(kind) \(one) twice") }
  }

  private mutating func add(_ command: SchemaCommand, _ method: String) throws(SchemaError) {
    let input = try object(command.argumentType, of: command.name)
    var reserved = NameScope()
    var extra: [Field] = []
    if Self.descriptorCommands.contains(command.name) {
      let notes = ["The index of the descriptor among those that came with the call"]
      extra.append(Field(name: reserved.claim(Self.descriptorParameter), shape: .integer, isNullable: true, notes: notes))
    }
    let inputIndex = try addStructure(input, path: method, scope: reserved)
    translation.structures[inputIndex].fields += extra
    let output: Translation.Output
    if case .object(let result)? = schema.types[command.returnType] {
      output = .structure(try addStructure(result, path: method, scope: NameScope()))
    } else {
      let isArray = if case .array? = schema.types[command.returnType] { true } else { false }
      output = .value(try shape(command.returnType, path: isArray ? method : method + "Return", of: command.name))
    }
    translation.commands.append(
      Translation.Command(
        name: command.name, method: method, allowsOutOfBand: command.allowsOutOfBand, isAnswered: command.isAnswered,
        descriptorParameter: extra.first?.name, input: inputIndex, output: output))
    translation.commandNotes.append(
      ["In QEMU: \(command.name)"] + (command.allowsOutOfBand ? ["Executed out of band"] : [])
        + featureNotes(input.features + command.features))
  }

  private mutating func add(_ event: SchemaEvent, field: String) throws(SchemaError) {
    _ = try object(event.dataType, of: event.name)
    let shape = try shape(event.dataType, path: Names.symbol(event.name.lowercased()), of: event.name)
    translation.events.append(Translation.Event(name: event.name, field: field, shape: shape))
    translation.eventNotes.append(["In QEMU: \(event.name)"] + featureNotes(event.features))
  }

  // MARK: types

  private func type(_ name: String, of user: String) throws(SchemaError) -> SchemaType {
    guard let type = schema.types[name] else { throw SchemaError("\(user) refers to the type \(name), which the schema does not have") }
    return type
  }

  func object(_ name: String, of user: String) throws(SchemaError) -> SchemaObject {
    guard case .object(let object) = try type(name, of: user) else { throw SchemaError("\(user) needs an object; \(name) is none") }
    return object
  }

  func enumeration(_ name: String, of user: String) throws(SchemaError) -> [SchemaEnumValue] {
    guard case .enumeration(let values) = try type(name, of: user) else { throw SchemaError("\(user) needs an enum; \(name) is none") }
    return values
  }

  /// The shape of a type that `user` refers to.
  ///
  /// - Parameter path: what to call it, if it has no name yet.
  mutating func shape(_ name: String, path: String, of user: String) throws(SchemaError) -> Shape {
    if let known = shapes[name] { return known }
    let shape: Shape
    switch try type(name, of: user) {
    case .builtin(.string): shape = .string
    case .builtin(.int): shape = .integer
    case .builtin(.number): shape = .number
    case .builtin(.boolean): shape = .boolean
    case .builtin(.null): shape = .null
    case .builtin(.any): shape = .any
    case .array(let element):
      if case .array(let inner) = try type(element, of: name) {
        // Not remembered: on its own, the inner array is one.
        return .array(.wrapper(wrapper(element, of: inner, path: path + "Entry")))
      }
      shape = .array(try self.shape(element, path: path + "Entry", of: name))
    case .enumeration(let values):
      shape = .enumeration(translation.enumerations.count)
      // An enum of one value is no enum to Python's parser, which tells it from a struct by its first comma.
      translation.enumerations.append(Enumeration(name: values.count > 1 ? claim(path) : nil, values: values))
    case .object(let object) where object.isEmpty: shape = .empty
    case .object(let object):
      shape = .structure(translation.structures.count)
      named.append(.structure(translation.structures.count, object))
      translation.structures.append(Structure(name: claim(path)))
    case .alternate(let branches):
      shape = .alternate(translation.alternates.count)
      named.append(.alternate(translation.alternates.count, branches))
      translation.alternates.append(Alternate(name: claim(path)))
    }
    shapes[name] = shape
    return shape
  }

  /// The name for a type that is first met at `path`.
  private mutating func claim(_ path: String) -> String { symbols.claim(String(path.prefix(Self.longestSymbol))) }

  private mutating func wrapper(_ array: String, of element: String, path: String) -> Int {
    if let known = wrapperIndices[array] { return known }
    let index = translation.wrappers.count
    wrapperIndices[array] = index
    named.append(.wrapper(index, element: array))
    translation.wrappers.append(Wrapper(name: claim(path)))
    return index
  }

  private mutating func define(_ definition: Definition) throws(SchemaError) {
    switch definition {
    case .structure(let index, let object):
      let name = translation.structures[index].name
      translation.structures[index] = try structure(object, name: name, path: name ?? "", scope: NameScope())
    case .alternate(let index, let branches):
      let path = translation.alternates[index].name
      for branch in branches {
        let kind = try kind(branch, of: path)
        guard !translation.alternates[index].branches.contains(where: { $0.kind == kind }) else {
          throw SchemaError("the alternate \(path) has two branches that are a JSON \(kind.rawValue)")
        }
        let shape = try shape(branch, path: path + Names.symbol(kind.rawValue), of: path)
        translation.alternates[index].branches.append((kind, shape))
      }
      guard !branches.isEmpty else { throw SchemaError("the alternate \(path) has no branches") }
    case .wrapper(let index, let array):
      let path = translation.wrappers[index].name
      translation.wrappers[index].element = try shape(array, path: path, of: path)
    }
  }

  private func kind(_ name: String, of user: String) throws(SchemaError) -> JSONKind {
    switch try type(name, of: user) {
    case .builtin(.string), .enumeration: return .string
    case .builtin(.int): return .int
    case .builtin(.number): return .float
    case .builtin(.boolean): return .bool
    case .builtin(.null): return .null
    case .array: return .array
    case .object: return .object
    case .builtin(.any), .alternate: throw SchemaError("the alternate \(user) has a branch that can be anything")
    }
  }

  private mutating func addStructure(_ object: SchemaObject, path: String, scope: NameScope) throws(SchemaError) -> Int {
    let structure = try structure(object, name: nil, path: path, scope: scope)
    translation.structures.append(structure)
    return translation.structures.count - 1
  }

  private mutating func structure(
    _ object: SchemaObject, name: String?, path: String, scope: NameScope
  ) throws(SchemaError) -> Structure {
    var flattening = try Flattening(of: object, in: self, path: path)
    fieldCount += flattening.places.count
    guard fieldCount <= Self.mostFields else { throw SchemaError("the schema's types have more than \(Self.mostFields) fields") }
    return try flattening.structure(name: name, path: path, scope: scope, &self)
  }
}
