public import SystemdEvent
public import SystemdJSON

// From the caller to QEMU. What the interface cannot say is checked here: which fields belong to which case of a union, and that
// one branch of an alternate is set. A field that is null is one that is not there.
@EventLoopActor
extension Translation {
  /// The arguments of a command, from the parameters of a call.
  ///
  /// - Returns: nil if there are none.
  public func arguments(of command: Command, _ parameters: JSONVariant) throws(ValueError) -> JSONVariant? {
    let arguments = try qapiObject(parameters, structures[command.input], except: command.descriptorParameter)
    return arguments.isEmpty ? nil : .object(arguments)
  }

  func qapi(_ value: JSONVariant, _ shape: Shape) throws(ValueError) -> JSONVariant {
    switch shape {
    case .string: return try expect(value, value.kind == .string, "a string")
    case .integer: return try integer(value)
    case .number: return try expect(value, value.kind == .integer || value.kind == .real, "a number")
    case .boolean: return try expect(value, value.kind == .boolean, "a boolean")
    case .null:
      _ = try expect(value, value.boolean == true, "true, which stands for null,")
      return .null
    case .empty: return try expect(value, value.members?.isEmpty == true, "an object without members")
    case .any: return try anyToQAPI(value)
    case .array(let element): return try qapiArray(value, element)
    case .wrapper(let index):
      guard let field = try singleField(of: value), field.name == Wrapper.field else { throw ValueError("'\(Wrapper.field)' is expected") }
      do { return try qapi(field.value, wrappers[index].element) } catch { throw error.under(Wrapper.field) }
    case .enumeration(let index):
      guard let name = value.string else { throw ValueError("a string is expected") }
      guard let qapi = enumerations[index].qapi(name) else { throw ValueError("there is no value \(name)") }
      return qapi == name ? value : .string(qapi)
    case .structure(let index): return .object(try qapiObject(value, structures[index]))
    case .alternate(let index):
      guard let field = try singleField(of: value) else { throw ValueError("one of the fields is to be set") }
      guard let branch = alternates[index].branches.first(where: { $0.kind.rawValue == field.name }) else {
        throw ValueError("there is no such field", at: field.name)
      }
      do { return try qapi(field.value, branch.shape) } catch { throw error.under(field.name) }
    }
  }

  private func expect(_ value: JSONVariant, _ isExpected: Bool, _ expected: String) throws(ValueError) -> JSONVariant {
    guard isExpected else { throw ValueError("\(expected) is expected") }
    return value
  }

  /// An integer, also one that was written as a string, as Varlink has it for those that JavaScript cannot say, or with an
  /// exponent.
  private func integer(_ value: JSONVariant) throws(ValueError) -> JSONVariant {
    switch value.kind {
    case .integer: return value
    case .real: if let integer = value.integer { return .integer(integer) }
    case .string:
      if let text = value.string {
        if let integer = Int64(text) { return .integer(integer) }
        if let integer = UInt64(text) { return .integer(integer) }
      }
    default: break
    }
    throw ValueError("an integer is expected")
  }

  private func qapiArray(_ value: JSONVariant, _ element: Shape) throws(ValueError) -> JSONVariant {
    guard let elements = value.elements else { throw ValueError("an array is expected") }
    var converted: [JSONVariant] = []
    converted.reserveCapacity(elements.count)
    for (index, value) in elements.enumerated() {
      do { converted.append(try qapi(value, element)) } catch { throw error.under(index) }
    }
    return .array(converted)
  }

  private func qapiObject(
    _ value: JSONVariant, _ structure: Structure, except ignored: String? = nil
  ) throws(ValueError) -> [(String, JSONVariant)] {
    guard let members = value.members else { throw ValueError("an object is expected") }
    var given: [Int: JSONVariant] = [:]
    for (name, value) in members where name != ignored && !value.isNull {
      guard let field = structure.field(name) else { throw ValueError("there is no such field", at: name) }
      guard given.updateValue(value, forKey: field) == nil else { throw ValueError("it is there twice", at: name) }
    }
    var converted: [(String, JSONVariant)] = []
    var next = structure.layers.first
    while let layer = next {
      next = nil
      for (index, member) in layer.members.enumerated() {
        let field = structure.fields[member.field]
        guard let value = given.removeValue(forKey: member.field) else {
          if member.isOptional { continue }
          throw ValueError("it is needed", at: field.name)
        }
        do { converted.append((member.qapi, try qapi(value, field.shape))) } catch { throw error.under(field.name) }
        if let tag = layer.tag, tag.member == index, let selected = converted.last?.1.string {
          next = layer.next(selected).map { structure.layers[$0] }
        }
      }
    }
    if let surplus = given.keys.min() { throw ValueError("it is for other cases", at: structure.fields[surplus].name) }
    return converted
  }

  private func anyToQAPI(_ value: JSONVariant) throws(ValueError) -> JSONVariant {
    guard let field = try singleField(of: value), let kind = JSONKind(rawValue: field.name) else {
      throw ValueError("one of the fields is to be set")
    }
    do {
      switch kind {
      case .bool: return try qapi(field.value, .boolean)
      case .int: return try qapi(field.value, .integer)
      case .float: return try qapi(field.value, .number)
      case .string: return try qapi(field.value, .string)
      case .null: return try qapi(field.value, .null)
      case .object: return try expect(field.value, field.value.isObject, "an object")
      case .array: return try qapiArray(field.value, .any)
      }
    } catch {
      throw error.under(field.name)
    }
  }

  /// The field that is set, if it is one.
  private func singleField(of value: JSONVariant) throws(ValueError) -> (name: String, value: JSONVariant)? {
    guard let members = value.members else { throw ValueError("an object is expected") }
    let set = members.filter { !$0.value.isNull }
    return set.count == 1 ? set[0] : nil
  }
}
