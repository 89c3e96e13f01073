import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@Suite(.onEventLoop) struct JSONVariantTests {
  @Test(
    "a text in its shortest form comes back as it was",
    arguments: [
      "null", "true", "false", "0", "-1", "9223372036854775807", "-9223372036854775808", "18446744073709551615", "{}", "[]",
      #""""#, #""a""#, #""ä🐚 ж""#, #""quote \" backslash \\ ""#, #""\n\t\r\b\f""#, #"{"a":{"b":[1,{"c":null},[]]},"d":""}"#,
      #"[1,"two",true,null,{},[[]]]"#, #"{"":1}"#, #"{"b":1,"a":2,"c":3}"#,
    ])
  @EventLoopActor
  func roundTrip(text: String) throws {
    #expect(try JSONVariant(parsing: text).text == text)
  }

  @Test("a number with a fraction keeps its value, if not its spelling", arguments: ["1.5", "-0.25", "0.1", "3.14159", "1e3"])
  @EventLoopActor
  func reals(text: String) throws {
    let parsed = try JSONVariant(parsing: text)
    let again = try JSONVariant(parsing: parsed.text)
    #expect(parsed == again)
    #expect(parsed.text == again.text)
    #expect(Double(parsed.text) == Double(text))
  }

  @Test(
    "what is insignificant goes",
    arguments: [
      (" { \"a\" :\r\n\t[ 1 , 2 ] } ", #"{"a":[1,2]}"#), (#""\u0041\u00e4\ud83d\udc1a""#, #""Aä🐚""#), (#""\/""#, #""/""#), ("[ ]", "[]"),
    ])
  @EventLoopActor
  func normalised(text: String, shortest: String) throws {
    #expect(try JSONVariant(parsing: text).text == shortest)
  }

  @Test(
    "what is no JSON is refused",
    arguments: [
      "", " ", "{", "}", "[1,", "[1 2]", "{\"a\"}", "{\"a\":}", "{1:2}", "{\"a\":1,}", "[1,]", "tru", "nul", "\"", "\"a", #""\x""#,
      #""\u12"#,
      "01", "1.", ".5", "--1", "1e", "'a'", "{} {}", "1 2", "[]x", "\"a\u{1}b\"",
    ])
  @EventLoopActor
  func faults(text: String) {
    do throws(JSONError) {
      _ = try JSONVariant(parsing: text)
      Issue.record("parsed")
    } catch {
      #expect("\(error)".hasPrefix("invalid JSON at line "))
    }
  }

  @Test("NULs are refused, wherever they are", arguments: ["\0", "1\0", "\"a\0b\"", "\0{}"]) @EventLoopActor
  func zero(text: String) {
    #expect(throws: JSONError("NUL in JSON text")) { try JSONVariant(parsing: text) }
  }

  @Test("nesting is bounded, and does no harm", arguments: ["[", "{\"a\":"]) @EventLoopActor
  func nesting(bracket: String) throws {
    let closing = bracket == "[" ? "]" : "}"
    let nested = { (depth: Int) in String(repeating: bracket, count: depth) + "1" + String(repeating: closing, count: depth) }
    #expect(try JSONVariant(parsing: nested(500)).text == nested(500))
    for depth in [2100, 5000, 200_000] {
      #expect(throws: JSONError.self) { try JSONVariant(parsing: nested(depth)) }
    }
  }

  @Test("text in a buffer is parsed up to its terminator") @EventLoopActor
  func terminated() throws {
    let parse = { @EventLoopActor (bytes: [UInt8]) throws(JSONError) -> JSONVariant in
      let result = bytes.withUnsafeBufferPointer { bytes in
        Result { () throws(JSONError) in try JSONVariant(parsingTerminated: bytes) }
      }
      return try result.get()
    }
    #expect(try parse(Array(#"{"a":"ä"}"#.utf8) + [0]).text == #"{"a":"ä"}"#)
    for bytes in [[], [0x31], [0x31, 0, 0], [0x31, 0, 0x32, 0], [0x31, 0, 0x32]] as [[UInt8]] {
      #expect(throws: JSONError("NUL in JSON text")) { try parse(bytes) }
    }
    #expect(throws: JSONError.self) { try parse([0]) }
    for invalid in [[0xFF], [0xC3], [0xC3, 0x28], [0xED, 0xA0, 0x80], [0xC0, 0x80], [0xF5, 0x80, 0x80, 0x80]] as [[UInt8]] {
      #expect(throws: JSONError.self) { try parse([0x22] + invalid + [0x22, 0]) }
      #expect(throws: JSONError.self) { try parse(Array(#"{""#.utf8) + invalid + Array(#"":1}"#.utf8) + [0]) }
    }
  }

  @Test("each accessor is for its own type, and nil for the others") @EventLoopActor
  func accessors() throws {
    let value = { @EventLoopActor (text: String) in try JSONVariant(parsing: text) }
    #expect(try value("null").isNull && !value("0").isNull && !value("{}").isNull)
    #expect(try value("\"é\"").string == "é")
    #expect(try value("\"\"").string == "")
    for other in ["null", "1", "true", "[]", "{}"] { #expect(try value(other).string == nil) }
    #expect(try value("-5").integer == -5)
    #expect(try value("9223372036854775807").integer == .max)
    for other in ["null", "\"1\"", "true", "1.5", "[1]", "{}", "18446744073709551615"] { #expect(try value(other).integer == nil) }
    #expect(try value("true").boolean == true)
    #expect(try value("false").boolean == false)
    for other in ["null", "\"true\"", "1", "0", "[]", "{}"] { #expect(try value(other).boolean == nil) }
    #expect(try value("[1,[2],null]").elements?.map(\.text) == ["1", "[2]", "null"])
    #expect(try value("[]").elements?.isEmpty == true)
    for other in ["null", "\"a\"", "1", "{}"] { #expect(try value(other).elements == nil) }
    #expect(try value("{}").members?.isEmpty == true)
    for other in ["null", "\"a\"", "1", "[]"] {
      #expect(try value(other).members == nil)
      #expect(try value(other)["a"] == nil)
    }
    #expect(try value("{}").isObject && !value("[]").isObject && value("[]").isArray && !value("{}").isArray)
  }

  @Test("an object's members keep their order, and are found by name") @EventLoopActor
  func members() throws {
    let object = try JSONVariant(parsing: #"{"z":1,"a":{"b":2},"m":null}"#)
    #expect(object.members?.map(\.name) == ["z", "a", "m"])
    #expect(object.members?.map(\.value.text) == ["1", #"{"b":2}"#, "null"])
    #expect(object["a"]?["b"]?.integer == 2)
    #expect(object["m"]?.isNull == true)
    #expect(object["x"] == nil && object[""] == nil)
  }

  @Test("values are put together") @EventLoopActor
  func construction() {
    #expect(JSONVariant.string("").text == #""""#)
    #expect(JSONVariant.string("a\"ä\n").text == #""a\"ä\n""#)
    #expect(JSONVariant.integer(-1).text == "-1")
    #expect(JSONVariant.integer(Int64.min).text == "-9223372036854775808")
    #expect(JSONVariant.integer(UInt64.max).text == "18446744073709551615")
    #expect(JSONVariant.boolean(true).text == "true" && JSONVariant.boolean(false).text == "false")
    #expect(JSONVariant.array([]).text == "[]")
    #expect(JSONVariant.array([.integer(1), .null, .string("x")]).text == #"[1,null,"x"]"#)
    #expect(JSONVariant.object([]).text == "{}")
    #expect(JSONVariant.object([("b", .null), ("a", .array([]))]).text == #"{"b":null,"a":[]}"#)
    let absent: JSONVariant? = nil
    #expect(JSONVariant.object(["z": .integer(1), "left out": absent, "a": .object([])]).text == #"{"z":1,"a":{}}"#)
    #expect("\(JSONVariant.integer(1))" == "1")
  }

  @Test("a value is part of others without being copied, and outlives them") @EventLoopActor
  func sharing() throws {
    let inner = try JSONVariant(parsing: #"{"long":["value","of","some","length"]}"#)
    var outer: JSONVariant? = .object(["first": inner, "second": inner])
    let again = try #require(outer?["second"])
    outer = nil
    #expect(again == inner)
    #expect(again.text == #"{"long":["value","of","some","length"]}"#)
  }

  @Test(
    "equal is what means the same",
    arguments: [
      ("1", "1", true), ("1", "2", false), ("1", "\"1\"", false), ("null", "false", false), (#"{"a":1,"b":2}"#, #"{"b":2,"a":1}"#, true),
      (#"{"a":1}"#, #"{"a":1,"b":null}"#, false), ("[1,2]", "[2,1]", false), ("[]", "{}", false), (#""\u0041""#, #""A""#, true),
      ("18446744073709551615", "-1", false),
    ])
  @EventLoopActor
  func equality(left: String, right: String, areEqual: Bool) throws {
    #expect(try (JSONVariant(parsing: left) == JSONVariant(parsing: right)) == areEqual)
  }

  @Test("a fault's place is told") @EventLoopActor
  func place() {
    #expect(throws: JSONError("invalid JSON at line 3, column 8")) { try JSONVariant(parsing: "{\n\n  \"a\": x\n}") }
    #expect(throws: JSONError("invalid JSON at line 1, column 4")) { try JSONVariant(parsing: "[1,x]") }
  }

  @Test("a string takes whatever Swift has, the code points too that libsystemd refuses") @EventLoopActor
  func anyString() {
    // U+FFFE, a noncharacter, which no Swift literal can have.
    let odd = String(decoding: [UInt8(ascii: "a"), 0xEF, 0xBF, 0xBE, UInt8(ascii: "b"), 0], as: UTF8.self)
    #expect(JSONVariant.string(odd).string == "a\u{FFFD}b\u{FFFD}")
    #expect(JSONVariant.string("").string == "")
  }

  @Test("null that was made is null that was read") @EventLoopActor
  func null() throws {
    #expect(JSONVariant.null == (try JSONVariant(parsing: "null")))
    #expect(try JSONVariant(parsing: "null") == .null)
    #expect(JSONVariant.null.text == "null")
    #expect(JSONVariant.null != .boolean(false) && JSONVariant.boolean(false) != .null)
  }
}
