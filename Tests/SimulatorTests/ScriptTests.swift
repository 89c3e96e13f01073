import QEMUJSON
import Simulator
import SystemdEvent
import TestSupport
import Testing

@Suite("scripts", .onEventLoop) struct ScriptTests {
  @EventLoopActor
  private static func client(_ script: String) async throws -> SimulatedClient {
    let script = try Script(parsing: script)
    return try await Simulation.negotiated { $0.script = script }.main
  }

  @Test("replies come in their order, the last one for ever") @EventLoopActor
  func order() async throws {
    let client = try await Self.client(
      """
      # Comments and empty lines count for nothing.

        {"execute": "query-block", "return": [1], "times": 2}
      {"execute": "query-block", "error": {"class": "DeviceNotFound", "desc": "no"}}
      {"execute": "query-name", "return": "canned"}
      {"execute": "query-block", "return": {"b": 1, "a": null}}
      """)
    var replies: [String] = []
    for _ in 0..<5 { replies.append(try await client.execute("query-block", #"{"any": "thing"}"#)) }
    let last = try QObject(parsing: #"{"return": {"b": 1, "a": null}}"#).text
    #expect(replies == [#"{"return": [1]}"#, #"{"return": [1]}"#, SimulatedClient.refusal("no", class: "DeviceNotFound"), last, last])
    #expect(try await client.ask(#"{"execute":"query-name","id":1}"#) == #"{"return": "canned", "id": 1}"#)
  }

  @Test("used up, a command is what it is without the script") @EventLoopActor
  func usedUp() async throws {
    let client = try await Self.client(
      """
      {"execute": "query-name", "return": 1, "times": 1}
      {"execute": "own", "return": 1, "times": 1}
      """)
    #expect(try await client.execute("query-name") == #"{"return": 1}"#)
    #expect(try await client.execute("query-name") == #"{"return": {"name": "test"}}"#)
    #expect(try await client.execute("own") == #"{"return": 1}"#)
    #expect(try await client.execute("own") == SimulatedClient.refusal("The command own has not been found", class: "CommandNotFound"))
  }

  @Test("events come before the reply") @EventLoopActor
  func events() async throws {
    let client = try await Self.client(#"{"execute":"own","return":{},"events":[{"event":"A"},{"event":"B","data":{"x":1}}]}"#)
    #expect(try await client.execute("own") == SimulatedClient.event("A"))
    #expect(try await client.lines(2) == [SimulatedClient.event("B", data: #"{"x": 1}"#), SimulatedClient.done])
  }

  @Test("a script does not get a client around its negotiation, nor out of band") @EventLoopActor
  func rules() async throws {
    let script = try Script(parsing: #"{"execute":"own","return":{}}"#)
    let simulation = try Simulation { $0.script = script }
    _ = try await simulation.main.line()
    #expect(try await simulation.main.execute("own") == QMPTests.notNegotiated)
    #expect(try await simulation.main.execute("qmp_capabilities", #"{"enable":["oob"]}"#) == SimulatedClient.done)
    #expect(
      try await simulation.main.ask(#"{"exec-oob":"own"}"#)
        == SimulatedClient.refusal("The command own has not been found", class: "CommandNotFound"))
    #expect(try await simulation.main.execute("own") == SimulatedClient.done)
  }

  @Test(
    "a mistake is told with its line",
    arguments: [
      ("nope", "line 1: 1:1: JSON parse error, invalid keyword 'nope'"), ("\n\n[]", "line 3: not a JSON object"),
      ("{}", "line 1: 'execute' must be a string"), ("#\n{\"execute\":\"a\"}", "line 2: there must be either 'return' or 'error'"),
      (#"{"execute":"a","return":1,"error":{}}"#, "line 1: there must be either 'return' or 'error'"),
      (#"{"execute":"a","error":{"class":"x"}}"#, "line 1: 'error' must have 'class' and 'desc', both strings"),
      (#"{"execute":"a","return":1,"times":0}"#, "line 1: 'times' must be a whole number from 1"),
      (#"{"execute":"a","return":1,"events":[1]}"#, "line 1: each of 'events' must have 'event', a string"),
      (#"{"execute":"a","return":1,"reply":1}"#, "line 1: 'reply' is not one of execute, return, error, events, times"),
      (#"{"execute":"qmp_capabilities","return":{}}"#, "line 1: qmp_capabilities is the simulator's own; use a fault to have it fail"),
      (#"{"execute":"a","return":1} {"#, "line 1: an incomplete JSON value"), ("{} {}", "line 1: more than one JSON value"),
    ])
  func mistakes(text: String, reason: String) {
    #expect {
      try Script(parsing: text)
    } throws: {
      "\($0)" == reason
    }
  }
}
