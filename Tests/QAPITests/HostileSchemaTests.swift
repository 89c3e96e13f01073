import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import QAPI

@Suite("a schema that makes no sense is refused with the reason", .onEventLoop) struct HostileSchemaTests {
  private static let object = #"{"meta-type":"object","name":"0","members":[]}"#
  private static func command(_ arguments: String, _ result: String = "0") -> String {
    #"{"meta-type":"command","name":"c","arg-type":"\#(arguments)","ret-type":"\#(result)"}"#
  }

  @Test(
    "single faults",
    arguments: [
      (#"{}"#, "the schema is not an array"), (#"[1]"#, "entry 1 of the schema has no name or no meta-type"),
      (#"[{"name":"x","meta-type":"poem"}]"#, "x is of the unknown meta-type poem"),
      (#"[{"name":"x","meta-type":"builtin","json-type":"poem"}]"#, "the built-in type x is of the unknown JSON type poem"),
      (
        #"[{"name":"a\nmethod B() -> ()","meta-type":"command","arg-type":"0","ret-type":"0"}]"#,
        "the schema has a name that is none in QAPI"
      ),
      (#"[\#(object),\#(object)]"#, "the schema has two types 0"),
      (#"[\#(command("9"))]"#, "c refers to the type 9, which the schema does not have"),
      (#"[\#(object),\#(command("0", "9"))]"#, "c refers to the type 9, which the schema does not have"),
      (#"[\#(object),\#(command("0")),\#(command("0"))]"#, "the schema has the command c twice"),
      (#"[{"meta-type":"array","name":"a","element-type":"0"},\#(command("a"))]"#, "c needs an object; a is none"),
      (#"[{"meta-type":"object","name":"u","tag":"t","members":[],"variants":[{"case":"a","type":"u"}]}]"#, "the union u has no tag"),
      (#"[{"meta-type":"object","name":"u","members":[{"name":"a"}]}]"#, "u has no type"),
      (
        #"[{"meta-type":"object","name":"u","members":[{"name":"a","type":"u"},{"name":"a","type":"u"}]}]"#,
        "the object u has a member twice"
      ),
      (#"[{"meta-type":"enum","name":"e","values":["a","a"]}]"#, "the enum e has a value twice"),
      (#"[{"meta-type":"enum","name":"e"}]"#, "e has no values"),
      (
        #"[\#(object),{"meta-type":"alternate","name":"a","members":[{"type":"0"},{"type":"0"}]},\#(command("0", "a"))]"#,
        "the alternate CReturn has two branches that are a JSON object"
      ),
      (#"[\#(object),{"meta-type":"alternate","name":"a","members":[]},\#(command("0", "a"))]"#, "the alternate CReturn has no branches"),
      (
        #"[\#(object),{"meta-type":"alternate","name":"a","members":[{"type":"a"}]},\#(command("0", "a"))]"#,
        "the alternate CReturn has a branch that can be anything"
      ),
    ])
  @EventLoopActor
  func faults(schema: String, reason: String) { expect(schema, reason) }

  @EventLoopActor
  private func expect(_ schema: String, _ reason: String) {
    do throws(SchemaError) {
      _ = try Translation(of: SchemaReader.read(.parsed(schema)), interface: "test.qmp")
      Issue.record("taken")
    } catch { #expect(error.description == reason) }
  }

  private static func union(_ name: String, tag: String, of inner: String) -> String {
    #"{"meta-type":"enum","name":"e\#(name)","values":["a","b"]},"#
      + #"{"meta-type":"object","name":"\#(name)","tag":"\#(tag)","members":[{"name":"\#(tag)","type":"e\#(name)"}],"#
      + #""variants":[{"case":"a","type":"\#(inner)"},{"case":"b","type":"\#(inner)"}]}"#
  }

  @Test("unions in unions, without end or twice as many on each level") @EventLoopActor
  func unions() {
    expect("[\(Self.union("u", tag: "t", of: "u")),\(Self.command("u"))]", "the union C has the member t twice")
    let levels = (0..<15).map { Self.union("u\($0)", tag: "t\($0)", of: "u\($0 + 1)") }.joined(separator: ",")
    let last = #"{"meta-type":"object","name":"u15","members":[{"name":"x","type":"u15","default":null}]}"#
    expect("[\(levels),\(last),\(Self.command("u0"))]", "the union C has too many cases in cases")
  }

  @Test("very many types, each inside the one before, make names of bounded length") @EventLoopActor
  func deep() throws {
    let count = 3000
    let types = (0..<count).map { #"{"meta-type":"object","name":"t\#($0)","members":[{"name":"inner","type":"t\#(($0 + 1) % count)"}]}"# }
    let translation = try Translation.of("[\(types.joined(separator: ",")),\(Self.command("t0"))".replacing("\"0\"", with: "\"t1\"") + "]")
    #expect(translation.structures.count == count + 2)
    #expect((translation.structures.compactMap(\.name).map(\.utf8.count).max() ?? 0) < 130)
  }

  @Test("more entries, and more parts, than any QEMU has") @EventLoopActor
  func huge() {
    let entry = { (index: Int) in #"{"meta-type":"event","name":"E\#(index)","arg-type":"0"}"# }
    expect("[\((0...65536).map(entry).joined(separator: ","))]", "the schema has more than 65536 entries")
    let values = "[\((0...1_000_000).map { _ in "0" }.joined(separator: ","))]"
    expect(#"[{"meta-type":"enum","name":"e","values":\#(values)}]"#, "the schema has more than 1000000 parts")
  }

  @Test("names that become a method's, a type's or a field's of ours give way") @EventLoopActor
  func clashes() throws {
    let translation = try Translation.of(
      """
      [\(Self.object),{"meta-type":"builtin","name":"int","json-type":"int"},
       {"meta-type":"object","name":"x","members":[{"name":"block","type":"y"},{"name":"file-descriptor-index","type":"int"}]},
       {"meta-type":"object","name":"y","members":[{"name":"a","type":"int"}]},
       {"meta-type":"command","name":"execute","arg-type":"0","ret-type":"0"},
       {"meta-type":"command","name":"add-fd","arg-type":"x","ret-type":"0"},
       {"meta-type":"command","name":"add-fd-block","arg-type":"0","ret-type":"0"},
       {"meta-type":"event","name":"TIMESTAMP","arg-type":"y"},{"meta-type":"event","name":"Timestamp","arg-type":"0"}]
      """)
    #expect(translation.commands.map(\.method) == ["AddFd", "AddFdBlock", "Execute2"])
    #expect(translation.text.contains("  block: AddFdBlock2,\n  # In QEMU: file-descriptor-index\n  fileDescriptorIndex_2: int,\n"))
    #expect(translation.events.map(\.field) == ["timestamp_2", "timestamp_3"])
    #expect(translation.text.contains("timestamp_3: ?AddFdBlock2\n") || translation.text.contains("timestamp_2: ?AddFdBlock2,\n"))
  }
}
