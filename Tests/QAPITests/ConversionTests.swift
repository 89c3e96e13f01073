import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import QAPI

@Suite("values of a schema with one of each", .onEventLoop) struct ConversionTests {
  private static let schema = #"""
    [{"meta-type":"builtin","name":"str","json-type":"string"},{"meta-type":"builtin","name":"int","json-type":"int"},
     {"meta-type":"builtin","name":"number","json-type":"number"},{"meta-type":"builtin","name":"bool","json-type":"boolean"},
     {"meta-type":"builtin","name":"null","json-type":"null"},{"meta-type":"builtin","name":"any","json-type":"value"},
     {"meta-type":"array","name":"[int]","element-type":"int"},{"meta-type":"array","name":"[[int]]","element-type":"[int]"},
     {"meta-type":"object","name":"0","members":[]},
     {"meta-type":"enum","name":"kind","members":[{"name":"inet"},{"name":"unix-socket"},{"name":"3des"},{"name":"none"}],"values":[]},
     {"meta-type":"enum","name":"one","values":["the-only"]},
     {"meta-type":"object","name":"inet","members":[{"name":"data","type":"int"},{"name":"port","type":"int","default":null}]},
     {"meta-type":"object","name":"unix","members":[{"name":"data","type":"str"},{"name":"port","type":"int"}]},
     {"meta-type":"object","name":"nest","tag":"kind","members":[{"name":"kind","type":"kind"}],
      "variants":[{"case":"inet","type":"inet"},{"case":"unix-socket","type":"unix"},{"case":"none","type":"0"}]},
     {"meta-type":"enum","name":"way","members":[{"name":"socket"},{"name":"file"}]},
     {"meta-type":"object","name":"file","members":[{"name":"file-name","type":"str"},{"name":"data","type":"bool","default":null}]},
     {"meta-type":"object","name":"union","tag":"way","members":[{"name":"way","type":"way"},{"name":"id","type":"str","default":null}],
      "variants":[{"case":"socket","type":"nest"},{"case":"file","type":"file"}]},
     {"meta-type":"alternate","name":"alt","members":[{"type":"str"},{"type":"number"},{"type":"[int]"},{"type":"union"},{"type":"null"}]},
     {"meta-type":"object","name":"args","members":[
       {"name":"u","type":"union","default":null},{"name":"alt","type":"alt","default":null},{"name":"x-any","type":"any","default":null},
       {"name":"matrix","type":"[[int]]","default":null},{"name":"one","type":"one","default":null},{"name":"nothing","type":"0","default":null},
       {"name":"void","type":"null","default":null},{"name":"n","type":"int","default":17},{"name":"same-name","type":"int","default":null},
       {"name":"same_name","type":"int","default":null}]},
     {"meta-type":"command","name":"do-it","arg-type":"args","ret-type":"alt","features":["unstable","odd"]},
     {"meta-type":"command","name":"add-fd","arg-type":"0","ret-type":"union","allow-oob":true},
     {"meta-type":"event","name":"IT_IS_DONE","arg-type":"args","features":["deprecated"]},
     {"meta-type":"event","name":"STOP","arg-type":"0"}]
    """#

  @Test(
    "from Varlink to QEMU and back",
    arguments: [
      (#"{}"#, #"{}"#), (#"{"u":null}"#, nil),
      (
        #"{"u":{"way":"file","fileName":"f","dataFile":true,"id":"i"}}"#, #"{"u":{"way":"file","id":"i","file-name":"f","data":true}}"#
      ),
      (#"{"u":{"way":"socket","kind":"inet","dataInet":1}}"#, #"{"u":{"way":"socket","kind":"inet","data":1}}"#),
      (
        #"{"u":{"port":2,"dataUnixSocket":"s","kind":"unixSocket","way":"socket"}}"#,
        #"{"u":{"way":"socket","kind":"unix-socket","data":"s","port":2}}"#
      ),
      (#"{"u":{"way":"socket","kind":"none"}}"#, #"{"u":{"way":"socket","kind":"none"}}"#),
      (#"{"u":{"way":"socket","kind":"n3des"}}"#, #"{"u":{"way":"socket","kind":"3des"}}"#),
      (#"{"alt":{"string":"s"}}"#, #"{"alt":"s"}"#), (#"{"alt":{"null":true}}"#, #"{"alt":null}"#),
      (#"{"alt":{"float":2}}"#, #"{"alt":2}"#), (#"{"alt":{"float":2.5}}"#, #"{"alt":2.5}"#),
      (#"{"alt":{"array":[1,2]}}"#, #"{"alt":[1,2]}"#),
      (#"{"alt":{"object":{"way":"file","fileName":""}}}"#, #"{"alt":{"way":"file","file-name":""}}"#),
      (#"{"xAny":{"null":true}}"#, #"{"x-any":null}"#), (#"{"xAny":{"int":18446744073709551615}}"#, #"{"x-any":18446744073709551615}"#),
      (
        #"{"xAny":{"array":[{"bool":false},{"array":[]},{"object":{"raw-name":null}}]}}"#, #"{"x-any":[false,[],{"raw-name":null}]}"#
      ),
      (#"{"matrix":[{"items":[1,2]},{"items":[]}]}"#, #"{"matrix":[[1,2],[]]}"#), (#"{"one":"theOnly"}"#, #"{"one":"the-only"}"#),
      (#"{"nothing":{}}"#, #"{"nothing":{}}"#), (#"{"void":true}"#, #"{"void":null}"#), (#"{"n":-9223372036854775808}"#, nil),
      (#"{"sameName":1,"sameName_2":2}"#, #"{"same-name":1,"same_name":2}"#),
    ])
  @EventLoopActor
  func both(varlink: String, qapi: String?) throws {
    let translation = try Translation.of(Self.schema)
    let command = try #require(translation.commands.first { $0.name == "do-it" })
    let arguments = try translation.arguments(of: command, JSONVariant(parsing: varlink)) ?? .object([])
    let expected = try JSONVariant(parsing: qapi ?? (varlink.contains("null") ? "{}" : varlink))
    #expect(arguments == expected)
    let back = try translation.varlink(expected, .structure(command.input))
    #expect(try back == JSONVariant(parsing: varlink.contains(":null") && qapi == nil ? "{}" : varlink))
  }

  @Test(
    "what is not of its type is refused, with its place",
    arguments: [
      (#"{"nope":1}"#, "nope: there is no such field"), (#"{"n":1,"n":2}"#, "n: it is there twice"),
      (#"{"n":1.5}"#, "n: an integer is expected"), (#"{"n":true}"#, "n: an integer is expected"),
      (#"{"n":"x"}"#, "n: an integer is expected"),
      (#"{"u":{}}"#, "u.way: it is needed"), (#"{"u":{"way":"odd"}}"#, "u.way: there is no value odd"),
      (#"{"u":{"way":"file"}}"#, "u.fileName: it is needed"),
      (#"{"u":{"way":"file","fileName":"f","dataInet":1}}"#, "u.dataInet: it is for other cases"),
      (#"{"u":{"way":"socket"}}"#, "u.kind: it is needed"), (#"{"u":{"way":"socket","kind":"inet"}}"#, "u.dataInet: it is needed"),
      (#"{"u":{"way":"socket","kind":"none","port":1}}"#, "u.port: it is for other cases"),
      (#"{"alt":{}}"#, "alt: one of the fields is to be set"),
      (#"{"alt":{"string":"s","null":true}}"#, "alt: one of the fields is to be set"),
      (#"{"alt":{"null":false}}"#, "alt.null: true, which stands for null, is expected"),
      (#"{"alt":{"bool":true}}"#, "alt.bool: there is no such field"),
      (#"{"alt":{"array":[1,{}]}}"#, "alt.array[1]: an integer is expected"), (#"{"alt":"s"}"#, "alt: an object is expected"),
      (#"{"xAny":{"array":[{"odd":1}]}}"#, "xAny.array[0]: one of the fields is to be set"),
      (#"{"xAny":{"object":[]}}"#, "xAny.object: an object is expected"), (#"{"matrix":[[1]]}"#, "matrix[0]: an object is expected"),
      (#"{"matrix":[{"items":["x"]}]}"#, "matrix[0].items[0]: an integer is expected"),
      (#"{"one":"the-only"}"#, "one: there is no value the-only"),
      (#"{"nothing":{"a":1}}"#, "nothing: an object without members is expected"), (#"[]"#, "an object is expected"),
    ])
  @EventLoopActor
  func refused(varlink: String, complaint: String) throws {
    let translation = try Translation.of(Self.schema)
    let command = try #require(translation.commands.first { $0.name == "do-it" })
    do throws(ValueError) {
      let arguments = try translation.arguments(of: command, .parsed(varlink))
      Issue.record("taken: \(arguments?.text ?? "nil")")
    } catch { #expect("\(error)" == complaint) }
  }

  @Test(
    "integers may be written as strings, and as numbers that are whole",
    arguments: [("\"18446744073709551615\"", "18446744073709551615"), ("\"-9\"", "-9"), ("2e3", "2000"), ("5.0", "5")])
  @EventLoopActor
  func integers(written: String, expected: String) throws {
    let translation = try Translation.of(Self.schema)
    let command = try #require(translation.commands.first { $0.name == "do-it" })
    #expect(try translation.arguments(of: command, .parsed(#"{"n":\#(written)}"#))?.text == #"{"n":\#(expected)}"#)
  }

  @Test(
    "a reply that is not what QEMU says that it would be is not passed on",
    arguments: [
      (#"true"#, "it is no bool"), (#"[1,"x"]"#, "[1]: an integer is expected"),
      (#"{"way":"file","file-name":"f","extra":1}"#, "extra: there is no such member"),
      (#"{"file-name":"f"}"#, "way: it is missing, or no string"), (#"{"way":"socket","kind":"odd"}"#, "kind: the value odd is not known"),
      (#"{"way":"file","port":1}"#, "port: there is no such member"),
    ])
  @EventLoopActor
  func badReplies(reply: String, complaint: String) throws {
    let translation = try Translation.of(Self.schema)
    let command = try #require(translation.commands.first { $0.name == "do-it" })
    do throws(ValueError) {
      let output = try translation.output(of: command, .parsed(reply))
      Issue.record("taken: \(output)")
    } catch { #expect("\(error)" == complaint) }
  }

  @Test("the interface's text") @EventLoopActor
  func text() throws {
    let text = try Translation.of(Self.schema).text
    for expected in [
      "# In QEMU: do-it\n# Unstable: may change or go in any version of QEMU\n# Feature odd\nmethod DoIt(\n",
      "  sameName: ?int,\n  # In QEMU: same_name\n  sameName_2: ?int\n) -> (\n  return: DoItAlt\n)\n", "  # Default: 17\n  n: ?int,\n",
      "  # Always \"theOnly\"\n  one: ?string,\n", "  matrix: ?[]DoItMatrixEntry,\n",
      "# An array\ntype DoItMatrixEntry (\n  items: []int\n)\n",
      "# One of these is set\ntype DoItAlt (\n  string: ?string,\n  float: ?float,\n  array: ?[]int,\n  object: ?DoItU,\n",
      "  # In QEMU: data\n  # Needed for kind inet\n  dataInet: ?int,\n  # Needed for kind unixSocket\n  # For kind inet\n  port: ?int,\n",
      "# In QEMU: add-fd\n# Executed out of band\nmethod AddFd(\n",
      "  fileDescriptorIndex: ?int\n) -> (\n  way: AddFdWay,\n  id: ?string,\n",
      "  timestamp: ?Timestamp,\n  # In QEMU: IT_IS_DONE\n  # Deprecated\n  itIsDone: ?ItIsDone,\n  # In QEMU: STOP\n  stop: ?object\n)\n",
    ] { #expect(text.contains(expected), "\(expected) in\n\(text)") }
  }

  @Test("the deepest that QEMU's client lets through, which is twice as deep in Varlink") @EventLoopActor
  func deep() throws {
    let translation = try Translation.of(Self.schema)
    let event = try #require(translation.event("IT_IS_DONE"))
    let depth = 998
    let value = String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
    let payload = try translation.payload(of: event, .parsed(#"{"x-any": \#(value), "n": 1}"#))
    #expect(payload.text.count > 10 * depth)
    #expect(try translation.qapi(payload, event.shape).text == #"{"x-any":\#(value),"n":1}"#)
  }
}

extension JSONVariant {
  /// A test's own JSON, which is valid.
  @EventLoopActor
  static func parsed(_ text: String) -> JSONVariant {
    guard let value = try? JSONVariant(parsing: text) else { preconditionFailure(text) }
    return value
  }
}
