import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import QMP

@Suite(.onEventLoop) struct ServerMessageTests {
  @Test(
    "what the server says is told apart",
    arguments: [
      (#"{"return": {"a": 1}}"#, #"reply {"a":1}"#),
      (#"{"return": null}"#, "reply null"),
      (#"{"return": [], "id": 3}"#, "reply []"),
      (#"{"id": 3, "error": {"class": "GenericError", "desc": "no"}}"#, "error GenericError: no"),
      (#"{"timestamp": {"seconds": 1}, "event": "STOP"}"#, #"event STOP - {"seconds":1}"#),
      (#"{"event": "X", "data": {"error": 1}, "timestamp": {}}"#, #"event X {"error":1} {}"#),
      (
        #"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 1, "major": 11}, "package": ""}, "capabilities": ["oob"]}}"#,
        "greeting 11.1.2 oob"
      ),
      (#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 1, "major": 11}}}}"#, "greeting 11.1.2 "),
      (#"{"QMP": {}}"#, "no QMP greeting: it has no version"),
      (#"{"QMP": 1}"#, "no QMP greeting: it has no version"),
      (#"{"error": {"class": "GenericError"}}"#, "not a QMP server: an error without class or desc"),
      (#"{"error": "no"}"#, "not a QMP server: an error without class or desc"),
      (#"{"event": 1}"#, "not a QMP server: a message that is neither greeting, reply nor event"),
      (#"{}"#, "not a QMP server: a message that is neither greeting, reply nor event"),
    ])
  @EventLoopActor
  func kinds(text: String, expected: String) throws {
    let parsed = try JSONVariant(parsing: text)
    let described: String
    do throws(QMPError) {
      described =
        switch try ServerMessage(parsed) {
        case .reply(let value): "reply \(value.text)"
        case .error(let errorClass, let desc): "error \(errorClass): \(desc)"
        case .event(let event): "event \(event.name) \(event.data?.text ?? "-") \(event.timestamp?.text ?? "-")"
        case .greeting(let greeting): "greeting \(greeting.version) \(greeting.capabilities.joined(separator: ","))"
        }
    } catch {
      described = "\(error)"
    }
    #expect(described == expected)
  }
}
