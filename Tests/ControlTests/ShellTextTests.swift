import SystemdEvent
import SystemdJSON
import Terminal
import TestSupport
import Testing

@testable import qmpctl

@Suite("what the QMP shell shows", .onEventLoop)
struct ShellTextTests {
  @Test(
    "JSON: what is short on one line, what is long on several",
    arguments: [
      ("{}", "{}"), ("[]", "[]"), ("null", "null"), (#"{"a":1,"b":[true,"x"]}"#, #"{"a": 1, "b": [true, "x"]}"#),
      (
        #"{"name":"0123456789012345678901234567890123456789","list":[{"a":1},{"b":null}]}"#,
        "{\n  \"name\": \"0123456789012345678901234567890123456789\",\n  \"list\": [{\"a\": 1}, {\"b\": null}]\n}"
      ),
      (#""\u001b]2;x\u0007\u202e\u009b""#, #""\u001b]2;x\u0007\u202e\u009b""#), (#"{"\u001b[2J":1}"#, #"{"\u001b[2J": 1}"#),
    ])
  @EventLoopActor func json(text: String, shown: String) throws {
    let value = try JSONVariant(parsing: text)
    let pretty = PrettyJSON(looks: Looks(areOn: false)).text(value)
    #expect(pretty == shown)
    #expect(try JSONVariant(parsing: pretty) == value)
    #expect(!PrettyJSON(looks: Looks(areOn: false)).line(value).contains("\n"))
  }

  @Test("JSON has colours by its kinds") @EventLoopActor
  func colours() throws {
    let text = PrettyJSON(looks: Looks(areOn: true)).text(try JSONVariant(parsing: #"{"a":["b",1,true]}"#))
    #expect(text == "{\u{1B}[34m\"a\"\u{1B}[0m: [\u{1B}[32m\"b\"\u{1B}[0m, \u{1B}[36m1\u{1B}[0m, \u{1B}[35mtrue\u{1B}[0m]}")
  }

  @Test(
    "what the human monitor answers",
    arguments: [
      ("", "", ""), ("a\r\nb\r\n", "a\nb", "a\nb\n"), ("a\tb\n", "a       b", "a\tb\n"), ("\u{1B}[2J", "\\u001b[2J", "\u{1B}[2J\n"),
      ("a\n\nb", "a\n\nb", "a\n\nb\n"),
    ])
  func hmp(text: String, terminal: String, pipe: String) {
    #expect(HMPText.forTerminal(text) == terminal)
    #expect(HMPText.forPipe(text) == pipe)
  }

  @Test("names of the human monitor's commands")
  func hmpNames() {
    let help = "announce_self [interfaces] [id] -- Trigger\r\nhelp|? [cmd] -- show\r\ninfo balloon  -- show\r\n\u{1B}x -- y\r\n"
    #expect(HMPCommands.names(in: help) == ["announce_self", "help", "info"])
    #expect(HMPCommands.names(in: help, behind: "info ") == ["balloon"])
  }
}
