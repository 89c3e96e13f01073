import SystemdEvent
import SystemdJSON
import Varlink

@testable import QAPI

/// Any schema is refused with a reason or becomes an interface that libsystemd takes; and any value is refused with a reason or comes
/// back as it was.
@EventLoopActor
enum SchemaTarget {
  /// The reply to `query-qmp-schema`, as it comes.
  static func runText(_ reply: [UInt8]) throws {
    if let translation = try? translation(of: reply) { try demandInterface(translation) }
  }

  private static func translation(of reply: [UInt8]) throws(SchemaError) -> Translation {
    var reader = SchemaReader()
    for entry in try SchemaText(reply) { try reader.read(text: entry) }
    return try Translation(of: reader.schema, interface: "test.qmp")
  }

  /// A schema that is made as the input says, and values for it.
  static func run(_ input: [UInt8]) throws {
    var script = ByteReader(input)
    let entries = (0..<(2 + script.number(below: 12))).map { entry($0, &script) }
    let text = #"{"return": [\#((basics + entries).joined(separator: ", "))]}"#
    guard let translation = try? translation(of: Array(text.utf8)) else { return }
    try demandInterface(translation)
    guard let value = try? (Array(script.rest) + [0]).withUnsafeBufferPointer({ try JSONVariant(parsingTerminated: $0) }) else { return }
    for command in translation.commands { try convert(value, command, translation) }
    for event in translation.events { _ = try? translation.payload(of: event, value) }
  }

  private static func convert(_ value: JSONVariant, _ command: Translation.Command, _ translation: Translation) throws {
    if let output = try? translation.output(of: command, value) {
      do throws(ValueError) {
        let back: JSONVariant
        switch command.output {
        case .structure(let index): back = try translation.qapi(output, .structure(index))
        case .value(let shape): back = try translation.qapi(output["return"] ?? .null, shape)
        }
        // A member that is null is one that is not there.
        if back != value, !value.text.contains("null") { throw ValueError("it is \(back)") }
      } catch  where !value.text.contains("null") {
        throw Violation(description: "\(value) becomes \(output), which does not come back: \(error)")
      } catch {}
    }
    if let arguments = try? translation.arguments(of: command, value) {
      guard let there = try? translation.varlink(arguments, .structure(command.input)) else {
        throw Violation(description: "\(value) becomes \(arguments), which does not come back")
      }
      let again = try? translation.arguments(of: command, there)
      try demand(again == arguments, "\(arguments) comes back as \(again?.text ?? "nothing")")
    }
  }

  private static func demandInterface(_ translation: Translation) throws(Violation) {
    do { _ = try VarlinkInterface(parsing: translation.text, kinds: ["SubscribeEvents": .more]) } catch {
      throw Violation(description: "\(error) in \(translation.text)")
    }
  }

  private static let basics = [
    #"{"meta-type": "object", "name": "0", "members": []}"#,
    #"{"meta-type": "builtin", "name": "str", "json-type": "string"}"#,
    #"{"meta-type": "builtin", "name": "int", "json-type": "int"}"#,
    #"{"meta-type": "builtin", "name": "any", "json-type": "value"}"#,
    #"{"meta-type": "enum", "name": "e", "members": [{"name": "a"}, {"name": "b-c"}]}"#,
  ]

  /// One entry, which refers to others by their numbers.
  private static func entry(_ number: Int, _ script: inout ByteReader) -> String {
    func type() -> String { ["str", "int", "any", "e", "0", "1", "2", "3", "4", "5", "6", "7"][script.number(below: 12)] }
    func name() -> String {
      ["a", "b", "type", "a-b", "a_b", "3d", "return", "items", "int", "file-descriptor-index"][script.number(below: 10)]
    }
    func members() -> String {
      (0..<script.number(below: 4)).map { _ in
        #"{"name": "\#(name())", "type": "\#(type())"\#(script.byte() & 1 == 0 ? "" : #", "default": null"#)}"#
      }.joined(separator: ", ")
    }
    switch script.byte() % 8 {
    case 0: return #"{"meta-type": "object", "name": "\#(number)", "members": [\#(members())]}"#
    case 1:
      let cases = ["a", "b-c"].map { #"{"case": "\#($0)", "type": "\#(type())"}"# }.joined(separator: ", ")
      return #"{"meta-type": "object", "name": "\#(number)", "tag": "t", "members": [{"name": "t", "type": "e"}], "variants": [\#(cases)]}"#
    case 2: return #"{"meta-type": "array", "name": "\#(number)", "element-type": "\#(type())"}"#
    case 3: return #"{"meta-type": "alternate", "name": "\#(number)", "members": [{"type": "\#(type())"}, {"type": "\#(type())"}]}"#
    case 4: return #"{"meta-type": "enum", "name": "\#(number)", "values": ["\#(name())", "\#(name())"]}"#
    case 5: return #"{"meta-type": "event", "name": "E\#(name())", "arg-type": "\#(type())"}"#
    case 6: return #"{"meta-type": "command", "name": "add-fd", "arg-type": "\#(type())", "ret-type": "\#(type())"}"#
    default: return #"{"meta-type": "command", "name": "\#(name())", "arg-type": "\#(type())", "ret-type": "\#(type())"}"#
    }
  }
}
