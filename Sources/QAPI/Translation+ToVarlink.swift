public import SystemdEvent
public import SystemdJSON

// From QEMU to the caller. Strict, because what is passed on without its type would not be what the interface says; and without
// copies where nothing has to change.
@EventLoopActor
extension Translation {
  /// The output of a method, from what the command returned.
  public func output(of command: Command, _ value: JSONVariant) throws(ValueError) -> JSONVariant {
    switch command.output {
    case .structure(let index): try varlinkObject(value, structures[index])
    case .value(let shape): try .object([(Self.resultField, varlink(value, shape))])
    }
  }

  /// The same for a result with many elements, part by part: `pause` is called in between.
  public func output(of command: Command, _ value: JSONVariant, pause: () async -> Void) async throws(ValueError) -> JSONVariant {
    guard case .value(.array(let element)) = command.output, let elements = value.elements, elements.count > Self.mostAtOnce else {
      return try output(of: command, value)
    }
    var converted: [JSONVariant] = []
    for (index, value) in elements.enumerated() {
      if index > 0, index.isMultiple(of: Self.mostAtOnce) { await pause() }
      do { converted.append(try varlink(value, element)) } catch { throw error.under(index) }
    }
    return .object([(Self.resultField, .array(converted))])
  }

  /// The value of an event's field, from the event's data.
  public func payload(of event: Event, _ data: JSONVariant?) throws(ValueError) -> JSONVariant {
    try varlink(data ?? .object([]), event.shape)
  }

  /// The output field of commands that return something else than an object.
  static var resultField: String { "return" }
  /// How many elements of a result become Varlink's without a pause.
  private static var mostAtOnce: Int { 16 }

  func varlink(_ value: JSONVariant, _ shape: Shape) throws(ValueError) -> JSONVariant {
    switch shape {
    case .string: return try checked(value, value.kind == .string, "a string")
    case .integer: return try checked(value, value.kind == .integer, "an integer")
    case .number: return try checked(value, value.kind == .integer || value.kind == .real, "a number")
    case .boolean: return try checked(value, value.kind == .boolean, "a boolean")
    case .null:
      _ = try checked(value, value.isNull, "null")
      return .boolean(true)
    case .empty: return try checked(value, value.isObject, "an object")
    case .any: return anyToVarlink(value)
    case .array(let element): return try varlinkArray(value, element)
    case .wrapper(let index): return try .object([(Wrapper.field, varlink(value, wrappers[index].element))])
    case .enumeration(let index):
      guard let name = value.string else { throw ValueError("a string is expected") }
      guard let varlink = enumerations[index].varlink(name) else { throw ValueError("the value \(name) is not known") }
      return varlink == name ? value : .string(varlink)
    case .structure(let index): return try varlinkObject(value, structures[index])
    case .alternate(let index):
      let kind = JSONKind(value)
      let branches = alternates[index].branches
      // A number branch takes whole numbers too, if there is none for those.
      let branch = branches.first { $0.kind == kind } ?? branches.first { $0.kind == .float && kind == .int }
      guard let branch else { throw ValueError("it is no \(kind.rawValue)") }
      return try .object([(branch.kind.rawValue, varlink(value, branch.shape))])
    }
  }

  private func checked(_ value: JSONVariant, _ isExpected: Bool, _ expected: String) throws(ValueError) -> JSONVariant {
    guard isExpected else { throw ValueError("\(expected) is expected") }
    return value
  }

  private func varlinkArray(_ value: JSONVariant, _ element: Shape) throws(ValueError) -> JSONVariant {
    guard let elements = value.elements else { throw ValueError("an array is expected") }
    var converted: [JSONVariant] = []
    converted.reserveCapacity(elements.count)
    for (index, value) in elements.enumerated() {
      do { converted.append(try varlink(value, element)) } catch { throw error.under(index) }
    }
    return .array(converted)
  }

  private func varlinkObject(_ value: JSONVariant, _ structure: Structure) throws(ValueError) -> JSONVariant {
    guard let members = value.members else { throw ValueError("an object is expected") }
    let active = try layers(of: value, structure)
    var converted: [(String, JSONVariant)] = []
    converted.reserveCapacity(members.count)
    for (name, value) in members {
      guard let field = active.lazy.compactMap({ $0.field(name) }).first else {
        throw ValueError("there is no such member").under(name)
      }
      do { converted.append((structure.fields[field].name, try varlink(value, structure.fields[field].shape))) } catch {
        throw error.under(name)
      }
    }
    return .object(converted)
  }

  /// The layers that a value of QEMU's has, by its tags.
  private func layers(of value: JSONVariant, _ structure: Structure) throws(ValueError) -> [Layer] {
    guard var layer = structure.layers.first else { return [] }
    var active = [layer]
    while let tag = layer.tag {
      let member = layer.members[tag.member]
      guard let selected = value[member.qapi]?.string else {
        if member.isOptional { break }
        throw ValueError("it is missing, or no string").under(member.qapi)
      }
      guard let next = layer.next(selected) else { break }
      layer = structure.layers[next]
      active.append(layer)
    }
    return active
  }

  private func anyToVarlink(_ value: JSONVariant) -> JSONVariant {
    switch JSONKind(value) {
    case .null: .object([(JSONKind.null.rawValue, .boolean(true))])
    case .array: .object([(JSONKind.array.rawValue, .array((value.elements ?? []).map(anyToVarlink)))])
    case let kind: .object([(kind.rawValue, value)])
    }
  }
}

extension JSONKind {
  @EventLoopActor
  init(_ value: JSONVariant) {
    switch value.kind {
    case .null: self = .null
    case .boolean: self = .bool
    case .integer: self = .int
    case .real: self = .float
    case .string: self = .string
    case .array: self = .array
    case .object: self = .object
    }
  }
}
