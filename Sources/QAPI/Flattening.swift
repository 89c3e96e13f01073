/// Makes one struct of a union, with the unions inside it: the tag, what every value has, and what values of some cases have.
///
/// A member that several cases have with one type is one field. A member that cases have with different types is one field for
/// each type, called after the first case that has it too: `dataInet`, `dataUnix`.
struct Flattening {
  /// Unions in unions in unions; QEMU 11.1 has two levels.
  private static let mostLevels = 16
  private static let mostLayers = 4096

  /// Where a member of one name and one type is found.
  struct Place {
    let member: SchemaMember
    /// Whether every value of the struct can have it.
    let isCommon: Bool
    /// The cases that have it: the tag's name and the tag's value, of the innermost union.
    var cases: [(tag: String, value: String, isOptional: Bool)] = []
    var field = ""
    var shape = Shape.any
  }

  private struct Draft {
    var members: [(place: Int, isOptional: Bool)] = []
    var tag: (member: Int, cases: [(value: String, layer: Int)])?
  }

  private(set) var places: [Place] = []
  private var placeIndices: [String: [(type: String, place: Int)]] = [:]
  private var drafts: [Draft] = []

  init(of object: SchemaObject, in translator: Translator, path: String) throws(SchemaError) {
    _ = try collect(object, translator, path: path, level: 0, case: nil, names: [])
  }

  private mutating func collect(
    _ object: SchemaObject, _ translator: Translator, path: String, level: Int, case selected: (tag: String, value: String)?,
    names: Set<String>
  ) throws(SchemaError) -> Int {
    guard level <= Self.mostLevels, drafts.count < Self.mostLayers else {
      throw SchemaError("the union \(path) has too many cases in cases")
    }
    let layer = drafts.count
    drafts.append(Draft())
    var names = names
    for member in object.members {
      guard names.insert(member.name).inserted else { throw SchemaError("the union \(path) has the member \(member.name) twice") }
      let place = self.place(of: member, isCommon: selected == nil)
      if let selected { places[place].cases.append((selected.tag, selected.value, member.isOptional)) }
      if member.name == object.tag { drafts[layer].tag = (drafts[layer].members.count, []) }
      drafts[layer].members.append((place, member.isOptional))
    }
    guard let tag = object.tag, let tagType = object.members.first(where: { $0.name == tag })?.type else { return layer }
    let values = Set(try translator.enumeration(tagType, of: path).map(\.name))
    for (value, type) in object.cases {
      guard values.contains(value) else { throw SchemaError("the union \(path) has a case \(value), which its tag does not have") }
      let branch = try translator.object(type, of: path)
      if branch.isEmpty { continue }
      let inner = try collect(branch, translator, path: path, level: level + 1, case: (tag, value), names: names)
      drafts[layer].tag?.cases.append((value, inner))
    }
    return layer
  }

  private mutating func place(of member: SchemaMember, isCommon: Bool) -> Int {
    if let known = placeIndices[member.name]?.first(where: { $0.type == member.type }) { return known.place }
    placeIndices[member.name, default: []].append((member.type, places.count))
    places.append(Place(member: member, isCommon: isCommon))
    return places.count - 1
  }

  /// The struct.
  ///
  /// - Parameters:
  ///   - path: what types of its fields are called after.
  ///   - scope: the field names that are taken.
  mutating func structure(
    name: String?, path: String, scope: NameScope, _ translator: inout Translator
  ) throws(SchemaError) -> Structure {
    var scope = scope
    // Those that keep their names first: one that is called after a case gives way.
    let isAlone = places.map { placeIndices[$0.member.name]?.count == 1 }
    for index in places.indices where isAlone[index] { places[index].field = scope.claim(Names.field(places[index].member.name)) }
    for index in places.indices where !isAlone[index] {
      let value = places[index].cases.first?.value ?? ""
      places[index].field = scope.claim(Names.field(places[index].member.name) + Names.symbol(value))
    }
    // And types are called after those, where they can be.
    for index in places.indices.filter({ isAlone[$0] }) + places.indices.filter({ !isAlone[$0] }) {
      let place = places[index]
      places[index].shape = try translator.shape(place.member.type, path: path + Names.symbol(place.field), of: path)
    }
    var structure = Structure(name: name)
    structure.fields.reserveCapacity(places.count)
    for place in places {
      structure.fields.append(
        Field(name: place.field, shape: place.shape, isNullable: !place.isCommon || place.member.isOptional, notes: place.notes))
    }
    structure.layers = drafts.map { draft in
      var layer = Layer()
      layer.members = draft.members.map { place, isOptional in
        let (name, field) = (places[place].member.name, places[place].field)
        // One string for both where it can be.
        return Layer.Member(qapi: name == field ? field : name, field: place, isOptional: isOptional)
      }
      layer.tag = draft.tag.map { ($0.member, $0.cases.map { ($0.value, $0.layer) }) }
      return layer
    }
    return structure
  }
}

extension Flattening.Place {
  /// What the type of the field does not say of it.
  var notes: [String] {
    var notes = Names.isObvious(field, for: member.name) ? [] : ["In QEMU: \(member.name)"]
    if !isCommon { notes += caseNotes }
    if let defaultText = member.defaultText { notes.append("Default: \(defaultText.prefix(200))") }
    return notes + featureNotes(member.features)
  }

  /// In which cases there is such a field, by the tag's values in Varlink's spelling.
  private var caseNotes: [String] {
    var notes: [String] = []
    for isOptional in [false, true] {
      let having = cases.filter { $0.isOptional == isOptional }
      guard let tag = having.first?.tag else { continue }
      let values = having.map { Names.field($0.value) }.joined(separator: ", ")
      notes.append("\(isOptional ? "For" : "Needed for") \(Names.field(tag)) \(values)")
    }
    return notes
  }
}
