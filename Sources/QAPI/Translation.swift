/// A schema as a Varlink interface: the text of its definition, and how values become those of the other side.
///
/// Made by ``init(of:name:)``. A value without references to libsystemd, so that it can be made on any thread.
public struct Translation: Sendable {
  /// One command, and the method that it is.
  public struct Command: Sendable {
    /// In QEMU.
    public let name: String
    /// In Varlink, unqualified.
    public let method: String
    /// Whether QEMU executes it out of band when asked to.
    public let allowsOutOfBand: Bool
    /// Whether QEMU answers when it succeeds. One that it does not answer cannot be waited for.
    public let isAnswered: Bool
    /// The name of the parameter that is the index of a descriptor, for the commands that take one.
    public let descriptorParameter: String?
    /// Indices into ``Translation/structures``; without a result, the value is the output's field `return`.
    let input: Int
    let output: Output
  }

  enum Output: Sendable {
    /// The members of the reply are the output's fields.
    case structure(Int)
    /// The reply is one field.
    case value(Shape)
  }

  /// One event, and its field in the messages of `SubscribeEvents`.
  public struct Event: Sendable {
    /// In QEMU.
    public let name: String
    public let field: String
    let shape: Shape
  }

  /// The interface's name.
  public let interface: String
  /// The interface's definition; empty after ``forgetDefinition()``.
  public internal(set) var text = ""
  /// In the order of their names.
  public internal(set) var commands: [Command] = []
  /// In the order of their names.
  public internal(set) var events: [Event] = []

  var structures: [Structure] = []
  var enumerations: [Enumeration] = []
  var alternates: [Alternate] = []
  var wrappers: [Wrapper] = []
  /// What is said of a method above it.
  var commandNotes: [[String]] = []
  var eventNotes: [[String]] = []

  init(interface: String) { self.interface = interface }

  /// Translates a schema.
  ///
  /// - Parameter interface: the name of the interface.
  /// - Throws: ``SchemaError`` for a schema that refers to what it has not, or that cannot be said in Varlink's IDL.
  public init(of schema: Schema, interface: String) throws(SchemaError) {
    var translator = Translator(schema, interface: interface)
    self = try translator.translate()
    text = try IDLText.of(self)
  }

  /// The event of that name in QEMU.
  public func event(_ name: String) -> Event? { events.first { $0.name == name } }

  /// Lets go of the definition and of what only that says, for one who has read it: it is most of the memory that this takes.
  public mutating func forgetDefinition() {
    text = ""
    commandNotes = []
    eventNotes = []
    for index in structures.indices {
      for field in structures[index].fields.indices { structures[index].fields[field].notes = [] }
    }
    for index in enumerations.indices { enumerations[index].notes = [] }
  }
}
