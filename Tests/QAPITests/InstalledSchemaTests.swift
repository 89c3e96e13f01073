import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing
import Varlink

@testable import QAPI

@Suite("the schema of the QEMU at hand", .onEventLoop) struct InstalledSchemaTests {
  @Test("read as text, entry by entry, it is the same") @EventLoopActor
  func asText() async throws {
    let reply = try await InstalledQEMU.schemaReply()
    for text in [#"{"return": \#(reply.text)}"#, #"{"return":\#(reply.text), "id": "[{"}"#] {
      var reader = SchemaReader()
      for entry in try SchemaText(Array(text.utf8)) { try reader.read(text: entry) }
      let translated = try Translation(of: reader.schema, interface: InstalledQEMU.interface).text
      #expect(try await translated == InstalledQEMU.translation().text)
    }
  }

  @Test(
    "what is no schema is an error, or has no entries that could be taken for one",
    arguments: [
      (#"{"error": {"class": "CommandNotFound", "desc": "no"}}"#, nil), (#"{"return": {}}"#, nil), ("", nil), (#"{"return": "#, nil),
      (#"{"return": []}"#, 0), (#"{"return": [1, "{}", null]}"#, 0), (#"{"return": [{"a": "}\"]"}, [{}], {"b": "#, 2),
    ] as [(String, Int?)])
  func noSchema(text: String, count: Int?) {
    #expect((try? SchemaText(Array(text.utf8)))?.reduce(into: 0) { count, _ in count += 1 } == count)
  }

  @Test("every command is a method, and every event a field") @EventLoopActor
  func counts() async throws {
    let entries = try #require(await InstalledQEMU.schemaReply().elements)
    let named = { @EventLoopActor (kind: String) in
      Set(entries.filter { $0["meta-type"]?.string == kind }.compactMap { $0["name"]?.string })
    }
    let translation = try await InstalledQEMU.translation()
    #expect(named("command").count > 200 && named("event").count > 50)
    #expect(Set(translation.commands.map(\.name)) == named("command"))
    #expect(Set(translation.events.map(\.name)) == named("event"))
    let methods = try Set(VarlinkInterface(parsing: translation.text).methods)
    #expect(methods == Set(translation.commands.map(\.method) + ["Execute", "SubscribeEvents"]))
  }

  @Test("the same schema gives the same text") @EventLoopActor
  func deterministic() async throws {
    let again = try await Translation(of: SchemaReader.read(InstalledQEMU.schemaReply()), interface: InstalledQEMU.interface)
    #expect(try await InstalledQEMU.translation().text == again.text)
  }

  @Test("names are a bijection in every scope, and of Varlink's grammar") @EventLoopActor
  func bijection() async throws {
    let schema = try await SchemaReader.read(InstalledQEMU.schemaReply())
    let translation = try await InstalledQEMU.translation()
    let field = #/[A-Za-z](_?[A-Za-z0-9])*/#
    let symbol = #/[A-Z][A-Za-z0-9]*/#
    func expectUnique(_ names: [String], _ grammar: Regex<some Any>, _ what: String) throws {
      #expect(Set(names).count == names.count, "\(what): \(names)")
      for name in names { #expect(try grammar.wholeMatch(in: name) != nil, "\(what): \(name)") }
    }
    try expectUnique(
      translation.commands.map(\.method) + translation.structures.compactMap(\.name) + translation.enumerations.compactMap(\.name)
        + translation.alternates.map(\.name) + translation.wrappers.map(\.name) + Translator.ownSymbols, symbol, "symbols")
    try expectUnique(translation.events.map(\.field) + ["event", "timestamp"], field, "events")
    for structure in translation.structures {
      try expectUnique(structure.fields.map(\.name), field, structure.name ?? "a method")
      // One field is one member of QEMU's, in every case that has it.
      var members: [Int: String] = [:]
      for member in structure.layers.flatMap(\.members) {
        #expect(members.updateValue(member.qapi, forKey: member.field) ?? member.qapi == member.qapi)
      }
      for layer in structure.layers { #expect(Set(layer.members.map(\.field)).count == layer.members.count) }
    }
    for enumeration in translation.enumerations {
      try expectUnique(enumeration.values.map(\.varlink), field, enumeration.name ?? "an enum")
      for value in enumeration.values {
        #expect(enumeration.varlink(value.qapi) == value.varlink && enumeration.qapi(value.varlink) == value.qapi)
      }
    }
    // The names that need a rule are there.
    let values = Set(translation.enumerations.flatMap(\.values).map(\.varlink))
    #expect(values.isSuperset(of: ["n3des", "n0", "n9"]))
    #expect(schema.types.count > 500)
  }

  @Test("varlinkctl and Python's varlink package parse it") @EventLoopActor
  func foreignParsers() async throws {
    let translation = try await InstalledQEMU.translation()
    let folder = try TemporaryFolder()
    let file = try folder.file("interface.varlink", Array(translation.text.utf8))
    let validated = try await command("varlinkctl", ["validate-idl", file.string])
    #expect(validated.status == 0, "\(validated.error)")
    let program = "import sys, varlink; i = varlink.Interface(open(sys.argv[1]).read()); print(i.name, len(i.members))"
    let parsed = try await command("/usr/bin/python3", ["-c", program, file.string])
    let symbols = translation.text.split(separator: "\n").filter { line in ["type ", "method ", "error "].contains { line.hasPrefix($0) } }
    #expect(parsed.output == "\(translation.interface) \(symbols.count)\n", "\(parsed.error)")
  }

  @Test("what is deprecated or unstable says so, and so do the commands that run out of band") @EventLoopActor
  func features() async throws {
    let entries = try #require(await InstalledQEMU.schemaReply().elements)
    let lines = try await InstalledQEMU.translation().text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    for command in entries where command["meta-type"]?.string == "command" {
      let name = try #require(command["name"]?.string)
      let start = try #require(lines.firstIndex { $0.hasPrefix("method \(Names.symbol(name))(") })
      let comment = lines[..<start].reversed().prefix { $0.hasPrefix("#") }.joined(separator: "\n")
      let features = command["features"]?.elements?.compactMap(\.string) ?? []
      #expect(comment.contains("In QEMU: \(name)"), "\(name)")
      #expect(comment.contains("Deprecated") == features.contains("deprecated"), "\(name)")
      #expect(comment.contains("Unstable") == features.contains("unstable"), "\(name)")
      #expect(comment.contains("out of band") == (command["allow-oob"]?.boolean == true), "\(name)")
    }
  }
}
