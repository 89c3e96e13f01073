import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import QAPI

@Suite(.onEventLoop) struct DescriptionTests {
  private static let schema = """
    [{"name":"walk","meta-type":"command","arg-type":"1","ret-type":"4","allow-oob":true,"features":["unstable"]},
     {"name":"ARRIVED","meta-type":"event","arg-type":"1"},
     {"name":"1","meta-type":"object","tag":"kind","members":[{"name":"kind","type":"3"},{"name":"next","type":"1","default":null},
       {"name":"all","type":"5"}],"variants":[{"case":"a","type":"2"},{"case":"b","type":"4"}]},
     {"name":"2","meta-type":"object","members":[{"name":"either","type":"6","features":["deprecated"]}]},
     {"name":"3","meta-type":"enum","members":[{"name":"a"},{"name":"b"}]},
     {"name":"4","meta-type":"object","members":[]},
     {"name":"5","meta-type":"array","element-type":"1"},
     {"name":"6","meta-type":"alternate","members":[{"type":"str"},{"type":"1"}]},
     {"name":"str","meta-type":"builtin","json-type":"string"}]
    """

  @Test("types are looked into as far as is asked for") @EventLoopActor
  func depth() throws {
    let schema = try SchemaReader.read(try JSONVariant(parsing: Self.schema))
    #expect(schema.names.commands == ["walk"] && schema.names.events == ["ARRIVED"] && schema.description(of: "none", depth: 1) == nil)
    let walk = try #require(schema.description(of: "walk", depth: 1))
    #expect(walk.allowsOutOfBand && walk.features == ["unstable"])
    guard case .object(let members, "kind", let cases) = walk.parameters, case .object(let none, nil, _)? = walk.result else {
      Issue.record("\(walk)")
      return
    }
    #expect(none.isEmpty && members.map(\.name) == ["kind", "next", "all"] && members.map(\.isOptional) == [false, true, false])
    guard case .enumeration(["a", "b"]) = members[0].type, case .deeper = members[1].type, case .array(.deeper) = members[2].type else {
      Issue.record("\(members)")
      return
    }
    #expect(cases.map(\.value) == ["a", "b"] && cases.map(\.members.count) == [1, 0] && cases[0].members[0].features == ["deprecated"])
    guard case .alternate(let branches) = cases[0].members[0].type, case .builtin("string") = branches[0], case .deeper = branches[1] else {
      Issue.record("\(cases)")
      return
    }
    #expect(schema.description(of: "ARRIVED", depth: 1)?.result == nil)
  }

  @Test("types that refer to themselves many times over have an end") @EventLoopActor
  func circles() throws {
    let members = (0..<20).map { #"{"name":"m\#($0)","type":"1"}"# }.joined(separator: ",")
    let schema = try SchemaReader.read(
      try JSONVariant(
        parsing: """
          [{"name":"walk","meta-type":"command","arg-type":"1","ret-type":"2"},
           {"name":"1","meta-type":"object","members":[\(members)]},{"name":"2","meta-type":"array","element-type":"2"}]
          """))
    func count(_ type: TypeDescription) -> Int {
      if case .object(let members, _, _) = type { members.reduce(members.count) { $0 + count($1.type) } } else { 0 }
    }
    let parameters = try #require(schema.description(of: "walk", depth: 8)?.parameters)
    #expect((20_000..<20_500).contains(count(parameters)))
  }
}
