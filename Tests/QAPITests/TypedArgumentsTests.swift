import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import QAPI

@Suite("commands as they are typed", .onEventLoop)
struct TypedArgumentsTests {
  private static func schema() async throws -> Schema { try await SchemaReader.read(InstalledQEMU.schemaReply()) }

  /// The command's arguments as JSON, or what is wrong with them.
  @EventLoopActor private static func outcome(_ line: String) async throws -> String {
    let schema = try await schema()
    do throws(ArgumentError) {
      let typed = try TypedLine(line)
      return try schema.arguments(of: typed.words[0].value, from: typed.words.dropFirst())?.text ?? "none"
    } catch {
      return "\(error)"
    }
  }

  @Test(
    "words",
    arguments: [
      ("", []), ("  a  b ", ["a", "b"]), ("a=1 b.c=x=y", ["a|1", "b.c|x=y"]), ("=x", ["=x"]), ("a=", ["a|"]),
      (#"a='b c' "d e" f"g"h"#, ["a|b c'", "d e'", "fgh'"]), (#"a="q\"\\\n" b='\'"#, [#"a|q"\\n'"#, #"b|\'"#]),
      (#"a\ b \=c"#, ["a b'", "=c'"]),
      (#"x {"a": [1, "}"]} y"#, ["x", #"{"a": [1, "}"]}#"#, "y"]), (#"a=["x", "\"]"] b"#, [#"a|["x", "\"]"]#"#, "b"]),
      ("a{b c}", ["a{b", "c}"]),
      ("'a=b'", ["a=b'"]),
    ])
  func words(line: String, expected: [String]) throws {
    let words = try TypedLine(line).words.map { word in
      (word.key.map { $0 + "|" } ?? "") + word.value + (word.form == .quoted ? "'" : word.form == .json ? "#" : "")
    }
    #expect(words == expected)
  }

  @Test(
    "words that do not end",
    arguments: [
      ("'a", "a quote (') is not closed"), (#""a\""#, "a quote (\") is not closed"), ("x {", "the JSON does not end"),
      (#"x ["]"]"#.dropLast().description, "the JSON does not end"),
      (#"a\"#, "there is nothing behind the backslash"), ("{}x", "there is something right behind a closing bracket"),
    ])
  func unfinishedWords(line: String, reason: String) {
    #expect(throws: ArgumentError(reason)) { try TypedLine(line) }
  }

  @Test("words that a shell has made keep their quotes")
  func shellWords() {
    let words = TypedLine(words: ["a=b c", "x='y'", "{\"a\": 1}", "k=[1]", "=", "plain word"]).words
    #expect(
      words == [
        .init(key: "a", value: "b c", form: .plain), .init(key: "x", value: "'y'", form: .plain),
        .init(key: nil, value: "{\"a\": 1}", form: .json),
        .init(key: "k", value: "[1]", form: .json), .init(key: nil, value: "=", form: .plain),
        .init(key: nil, value: "plain word", form: .plain),
      ])
  }

  @Test(
    "arguments get the types that QEMU asks for",
    arguments: [
      ("query-status", "none"), ("stop {}", "{}"),
      ("block_resize node-name=n size=1G", #"{"node-name":"n","size":1073741824}"#),
      ("block_resize size=0x10 node-name=12", #"{"size":16,"node-name":"12"}"#),
      ("balloon value=18446744073709551615", #"{"value":18446744073709551615}"#), ("block_resize size=-1", #"{"size":-1}"#),
      ("query-block-info", "there is no command 'query-block-info'"),
      ("set_link name=n up=on", #"{"name":"n","up":true}"#), ("set_link name=n up=no", #"{"name":"n","up":false}"#),
      (
        "blockdev-add driver=qcow2 node-name=a file.driver=file file.filename='/x y' read-only=true",
        #"{"driver":"qcow2","node-name":"a","file":{"driver":"file","filename":"/x y"},"read-only":true}"#
      ),
      // A reference to another node instead of a node.
      ("blockdev-add driver=raw file=other", #"{"driver":"raw","file":"other"}"#),
      ("blockdev-add {\"driver\": \"raw\", \"file\": {\"driver\": \"null-co\"}}", #"{"driver":"raw","file":{"driver":"null-co"}}"#),
      ("blockdev-add driver=raw file={\"driver\":\"null-co\",\"size\":5}", #"{"driver":"raw","file":{"driver":"null-co","size":5}}"#),
      (
        "blockdev-reopen options.0.driver=null-co options.0.node-name=a options.1.driver=null-co",
        #"{"options":[{"driver":"null-co","node-name":"a"},{"driver":"null-co"}]}"#
      ),
      // One of several types: null or a string.
      ("migrate-set-parameters tls-creds=null max-bandwidth=5", #"{"tls-creds":null,"max-bandwidth":5}"#),
      ("migrate-set-parameters tls-creds='null'", #"{"tls-creds":"null"}"#),
      // What only the device knows, and what may be anything.
      (
        "device_add driver=virtio-net-pci id=n mq=true vectors=4 mac=52:54:00:12:34:56",
        #"{"driver":"virtio-net-pci","id":"n","mq":true,"vectors":4,"mac":"52:54:00:12:34:56"}"#
      ),
      ("qom-set path=/x property=y value=\"5\"", #"{"path":"/x","property":"y","value":"5"}"#),
      ("qom-set path=/x property=y value=5", #"{"path":"/x","property":"y","value":5}"#),
      ("qom-set path=/x property=y value.a.b=true", #"{"path":"/x","property":"y","value":{"a":{"b":true}}}"#),
      ("query-cpu-model-expansion type=full model.name=qemu64", #"{"type":"full","model":{"name":"qemu64"}}"#),
    ])
  @EventLoopActor func typed(line: String, arguments: String) async throws {
    #expect(try await Self.outcome(line) == arguments)
  }

  @Test(
    "what is wrong is told before QEMU sees it, by name",
    arguments: [
      ("stop now=1", "stop takes no arguments, and no 'now'"),
      ("qom-get path=/ proprety=x", "qom-get has no 'proprety'; it has path, property"),
      ("qom-get path=/", "qom-get needs 'property'"), ("set_link name=n up=maybe", "'up' is true or false, not 'maybe'"),
      ("block_resize size=1X", "'size' is an integer, not '1X'"),
      ("block_resize size=99999999999P", "'size' is an integer, not '99999999999P'"),
      ("block_resize {\"size\": \"1\"}", "'size' is an integer, not '\"1\"'"), ("qom-get {\"path\": \"/\"}", "qom-get needs 'property'"),
      ("qom-get [1]", "what stands behind qom-get is an object, not '[1]'"), ("qom-get {\"path\": 1", "the JSON does not end"),
      ("query-cpu-model-expansion type=fully model.name=q", "'type' is one of static, full, not 'fully'"),
      ("query-cpu-model-expansion type=full model=q", "'model' is an object: model={…}, or model.NAME=…"),
      ("query-cpu-model-expansion type=full model.nom=q", "'model' has no 'nom'; it has name, props"),
      ("query-cpu-model-expansion type=full model.props=1", "query-cpu-model-expansion needs 'model.name'"),
      ("blockdev-add driver=raw", "blockdev-add needs 'file'"),
      ("blockdev-add driver=raw file.driver=file", "blockdev-add needs 'file.filename'"),
      ("blockdev-add driver=raw file.driver=file file.filename=1 file.size=2", nil),
      ("blockdev-reopen options=x", "'options' is a list: options=[…], or options.0=…"),
      ("blockdev-reopen options.1.driver=null-co", "'options' is a list, whose elements are .0 to .0 and not .1"),
      ("qom-get path=/ path=/", "'path' is given twice"), ("qom-set value=1 value.a=1", "'value.a' is given in two ways"),
      ("qom-get /", "'/' is no argument: those are name=value, or one JSON object"),
      ("qom-get a..b=1", "'a..b' is not the name of an argument"),
      ("qom-get path.x=/ property=y", "'path' is a string"),
    ])
  @EventLoopActor func wrong(line: String, reason: String?) async throws {
    let outcome = try await Self.outcome(line)
    if let reason { #expect(outcome == reason) } else { #expect(outcome.contains("has no 'size'; it has"), "\(outcome)") }
  }

  @Test("JSON that is nested deeply is refused") @EventLoopActor
  func depth() async throws {
    let depth = 200
    let backing = String(repeating: #"{"driver":"raw","file":"#, count: depth) + #""x""# + String(repeating: "}", count: depth)
    #expect(try await Self.outcome("blockdev-add \(backing)") == "the arguments are more than 128 levels deep")
    let path = Array(repeating: "file", count: 40).joined(separator: ".")
    #expect(try await Self.outcome("blockdev-add \(path)=x") == "'\(path)' is not the name of an argument")
  }

  @Test("whole commands in JSON are checked too") @EventLoopActor
  func wholeCommands() async throws {
    let schema = try await Self.schema()
    try schema.check(JSONVariant(parsing: #"{"execute":"qom-get","arguments":{"path":"/","property":"type"},"id":[1]}"#))
    #expect(throws: ArgumentError("qom-get needs 'path', 'property'")) { try schema.check(JSONVariant(parsing: #"{"execute":"qom-get"}"#)) }
    #expect(throws: ArgumentError("it has neither 'execute' nor 'exec-oob'")) { try schema.check(JSONVariant(parsing: "{}")) }
  }

  @Test(
    "what could stand at the end of a line",
    arguments: [
      ("", "", ["query-status ", "quit "]), ("query-st", "query-st", ["query-status "]), ("qom-get ", "", ["path=", "property="]),
      ("qom-get path=/ pro", "pro", ["property="]), ("query-cpu-model-expansion type=", "", ["static ", "full "]),
      ("query-cpu-model-expansion mo", "mo", ["type=", "model."]),
      ("query-cpu-model-expansion model.n", "n", ["name="]),
      ("set_link up=", "", ["true ", "false "]), ("blockdev-add driver=qc", "qc", ["qcow2 ", "raw "]),
      ("blockdev-add driver=qcow2 ", "", ["file=", "file.", "backing=", "lazy-refcounts="]),
      ("blockdev-add driver=qcow2 file.driver=file file.", "", ["filename=", "locking="]),
      ("blockdev-add driver=qcow2 file.driver=file file.locking=", "", ["on ", "off ", "auto "]), ("blockdev-reopen options.", "", ["0."]),
      ("blockdev-reopen options.0.dri", "dri", ["driver="]), ("qom-set value=", "", []),
    ] as [(String, String, [String])])
  @EventLoopActor func suggestions(line: String, typed: String, among: [String]) async throws {
    let found = try await Self.schema().suggestions(for: line)
    #expect(found.typed == typed)
    let candidates = found.candidates.map { $0.text + $0.suffix }
    #expect(Set(candidates).isSuperset(of: among) && (candidates.isEmpty == among.isEmpty), "\(candidates)")
    #expect(Set(candidates).count == candidates.count, "\(candidates)")
  }

  @Test(
    "nothing is suggested where nothing is known, and nothing that is given already",
    arguments: [
      "nonsense ", "nonsense a=", "qom-get {", "qom-get 'pa", "qom-get {} ", "qom-get x y=", "query-status ", "a=b ",
      "blockdev-add file.filename.", "qom-get nope.",
    ])
  @EventLoopActor func noSuggestions(line: String) async throws {
    #expect(try await Self.schema().suggestions(for: line).candidates.isEmpty)
    let found = try await Self.schema().suggestions(for: "qom-get path=/ ").candidates
    #expect(found.map(\.text) == ["property="])
  }

  @Test("every command can be described, and every one that takes no more than texts is completed from beginning to end") @EventLoopActor
  func everyCommand() async throws {
    let schema = try await Self.schema()
    #expect(schema.commands.count > 200)
    for name in schema.commands.map(\.name) {
      let description = try schema.description(of: name)
      #expect(
        description.hasPrefix(name) && description.contains("\nreturns ") || description.contains("is not answered"), "\(description)")
      _ = schema.suggestions(for: "\(name) ")
    }
    #expect(
      try schema.description(of: "qom-get")
        == "qom-get\narguments:\n  path      a string\n  property  a string\nreturns any JSON")
    let union = try schema.description(of: "object-add", with: TypedLine("qom-type=iothread").words)
    #expect(union.contains("poll-max-ns") && !union.contains("decides"))
    #expect(throws: ArgumentError("there is no command 'nope'")) { try schema.description(of: "nope") }
  }
}
