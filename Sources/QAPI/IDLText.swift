/// Writes an interface's definition.
struct IDLText {
  /// The longest definition: a Varlink message, which introspection sends it in, has 16 MiB.
  private static let longest = 8 << 20
  /// The longest line of comment.
  private static let columns = 120

  private let translation: Translation
  private var text = ""

  static func of(_ translation: Translation) throws(SchemaError) -> String {
    var writer = IDLText(translation: translation)
    writer.write()
    guard writer.text.utf8.count <= longest else { throw SchemaError("the interface's definition has more than \(longest) bytes") }
    return writer.text
  }

  private init(translation: Translation) { self.translation = translation }

  private mutating func write() {
    text += """
      # Every command and every event of this machine's QEMU, from what QEMU says of itself. Other versions have others.
      #
      # A value has QEMU's own form, with these rules. Names: qom-type is qomType, query-block is the method QueryBlock, and what
      # begins with a digit begins with an n. A union is one struct that has the fields of all its cases; a comment says which
      # ones are for which, and others are refused. An alternate is a struct with one field per JSON type, of which one is set.
      # QEMU's other rules for values are QEMU's to check.
      #
      # QEMU executes the commands of all its clients one after the other. When one takes so long that QEMU counts as not
      # responding, its caller gets io.systemd.QemuMachineInstance.NotResponding, and so do those behind it; what QEMU does of it
      # nevertheless is not known then.
      interface \(translation.interface)

      # Any JSON value: the one field that is set is the value
      type Any (
        bool: ?bool,
        int: ?int,
        float: ?float,
        string: ?string,
        array: ?[]Any,
        # As it is, in QEMU's own names
        object: ?object,
        # True if the value is null
        null: ?bool
      )

      # A point in time of QEMU's clock
      type Timestamp (
        seconds: int,
        microseconds: int
      )

      """
    for (_, definition) in typeDefinitions().sorted(by: { $0.name < $1.name }) { text += "\n" + definition }
    for (index, command) in translation.commands.enumerated() {
      text += "\n" + Self.comment(translation.commandNotes[index])
      let input = fields(translation.structures[command.input].fields)
      let output =
        switch command.output {
        case .structure(let index): fields(translation.structures[index].fields)
        case .value(let shape): fields([Field(name: "return", shape: shape, isNullable: false, notes: [])])
        }
      text += "method \(command.method)\(input) -> \(output)\n"
    }
    writeOwnMethods()
  }

  private mutating func writeOwnMethods() {
    let events = zip(translation.events, translation.eventNotes).map { event, notes in
      Field(name: event.field, shape: event.shape, isNullable: true, notes: notes)
    }
    text += """

      # Executes a command by QEMU's name for it, with arguments and result in QEMU's own form: for what no type describes, and for
      # programs that know QMP already
      method Execute(
        command: string,
        arguments: ?object,
        # Executes it out of band, for the commands that QEMU does that for
        oob: ?bool,
        # The index of a descriptor among those that came with the call, for the commands that take one
        fileDescriptorIndex: ?int,
        # Whether polkit may have somebody authenticate for this call, which waits meanwhile. False if null. The methods that are
        # commands have no such parameter: theirs are QEMU's
        allowInteractiveAuthentication: ?bool
      ) -> (
        # Whatever the command returns: mostly an object, but it can be any JSON value
        return: object
      )

      # Streams QEMU's events. The first message is the event READY: from then on nothing is missed. When QEMU is gone the
      # connection ends. Needs the "more" flag
      method SubscribeEvents(
        # The names of the events to send, in QEMU's spelling; all if null or empty. READY is always sent
        filter: ?[]string,
        # As for Execute
        allowInteractiveAuthentication: ?bool
      ) -> (
        # The name, in QEMU's spelling
        event: string,
        # When it happened; missing on READY
        timestamp: ?Timestamp\(events.map { ",\n" + field($0) }.joined())
      )

      # QEMU has refused the command, or it failed
      error QMPError (
        class: string,
        desc: string
      )

      # The command was not sent to QEMU, because it would break what this service is built on
      error Refused (
        command: string,
        reason: string
      )

      # QEMU has executed the command, but its reply is not what QEMU itself says that it would be
      error BadReply (
        command: string,
        reason: string
      )

      """
  }

  private func typeDefinitions() -> [(name: String, text: String)] {
    var definitions: [(name: String, text: String)] = []
    for structure in translation.structures {
      if let name = structure.name { definitions.append((name, "type \(name) \(fields(structure.fields))\n")) }
    }
    for enumeration in translation.enumerations {
      guard let name = enumeration.name else { continue }
      let values = zip(enumeration.values, enumeration.notes).map { value, notes in
        Self.comment(notes, indent: "  ") + "  " + value.varlink
      }
      definitions.append((name, "type \(name) (\n\(values.joined(separator: ",\n"))\n)\n"))
    }
    for alternate in translation.alternates {
      let branches = alternate.branches.map { branch in
        Field(name: branch.kind.rawValue, shape: branch.shape, isNullable: true, notes: [])
      }
      definitions.append((alternate.name, "# One of these is set\ntype \(alternate.name) \(fields(branches))\n"))
    }
    for wrapper in translation.wrappers {
      let items = Field(name: Wrapper.field, shape: wrapper.element, isNullable: false, notes: [])
      definitions.append((wrapper.name, "# An array\ntype \(wrapper.name) \(fields([items]))\n"))
    }
    return definitions
  }

  // MARK: fields

  private func fields(_ fields: [Field]) -> String {
    fields.isEmpty ? "()" : "(\n\(fields.map(field).joined(separator: ",\n"))\n)"
  }

  private func field(_ field: Field) -> String {
    let notes = field.notes + shapeNotes(field.shape)
    return Self.comment(notes, indent: "  ") + "  \(field.name): \(field.isNullable ? "?" : "")\(spelling(field.shape))"
  }

  private func spelling(_ shape: Shape) -> String {
    switch shape {
    case .string: "string"
    case .integer: "int"
    case .number: "float"
    case .boolean, .null: "bool"
    case .any: "Any"
    case .empty: "object"
    case .array(let element): "[]" + spelling(element)
    case .enumeration(let index): translation.enumerations[index].name ?? "string"
    case .structure(let index): translation.structures[index].name ?? "object"
    case .alternate(let index): translation.alternates[index].name
    case .wrapper(let index): translation.wrappers[index].name
    }
  }

  /// What the spelling does not say.
  private func shapeNotes(_ shape: Shape) -> [String] {
    switch shape {
    case .null: ["True stands for null"]
    case .array(let element): shapeNotes(element)
    case .enumeration(let index) where translation.enumerations[index].name == nil:
      translation.enumerations[index].values.map { "Always \"\($0.varlink)\"" }
    default: []
    }
  }

  /// Comment lines, broken between words.
  private static func comment(_ notes: [String], indent: String = "") -> String {
    var result = ""
    for note in notes {
      var line = ""
      for word in note.split(separator: " ") {
        if !line.isEmpty, line.utf8.count + word.utf8.count >= columns {
          result += "\(indent)# \(line)\n"
          line = ""
        }
        line += (line.isEmpty ? "" : " ") + word
      }
      result += "\(indent)# \(line)\n"
    }
    return result
  }
}
