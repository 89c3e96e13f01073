import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import QMP

/// Commands that are somebody else's, beside our own.
@Suite("forwarded commands", .onEventLoop)
struct QMPForwardingTests {
  /// Submits a command; the promise gets the reply's text.
  @EventLoopActor
  private static func submit(_ text: String, _ client: QMPClient) -> Promise<Result<String, QMPError>> {
    let outcome = Promise<Result<String, QMPError>>()
    client.submit(Array(text.utf8)) { outcome.fulfil($0.map { String(decoding: $0, as: UTF8.self) }) }
    return outcome
  }

  /// The id of the question whether the server is there again.
  @EventLoopActor
  private static func probe(_ conversation: Conversation) async throws -> Substring {
    try await conversation.server.wait("the question") { $0.text.contains(/"id":"[^"]+"/) }
    return try #require(conversation.server.text.firstMatch(of: /"id":"([^"]+)"/)).output.1
  }

  @Test("each reply is its command's, as it came, whatever its id; events and our own commands between them") @EventLoopActor
  func order() async throws {
    let conversation = try Conversation()
    conversation.client.keepsEventText = true
    var events: [String] = []
    conversation.client.onEvent = { events.append(String(decoding: $0.text, as: UTF8.self)) }
    let first = Self.submit(#"{"execute":"a","id":1e400}"#, conversation.client)
    let own = conversation.begin("own")
    let second = Self.submit(#"{"execute":"b"}"#, conversation.client)
    try await conversation.server.wait(for: #"{"execute":"a","id":1e400}{"execute":"b"}{"execute":"own"}"#)
    let event = #"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#
    // Our own went out last: tasks begin when the loop turns.
    let replies = [#"{"return": {},  "id": inf}"#, event, #"{"error": {"class": "GenericError", "desc": "timestamp"}}"#, #"{"return": 7}"#]
    try await conversation.server.write(replies.joined(separator: "\r\n") + "\r\n")
    #expect(try await first.soon().get() == replies[0])
    #expect(try await second.soon().get() == replies[2])
    #expect(try await own.soon().get().integer == 7)
    #expect(events == [event])
  }

  @Test(
    "a server that does not answer in time: our own commands fail, forwarded ones wait, and no reply is another's", arguments: [0, 1, 2, 3])
  @EventLoopActor
  func notResponding(answered: Int) async throws {
    let conversation = try Conversation()
    let client = conversation.client
    client.responseLimit = .milliseconds(10)
    let before = [Self.submit(#"{"execute":"f0"}"#, client), Self.submit(#"{"execute":"f1"}"#, client)]
    let own = conversation.begin("own")
    #expect(try await own.soon().error == .timedOut)
    client.responseLimit = nil
    let after = Self.submit(#"{"execute":"f2"}"#, client)
    try await conversation.server.wait(for: #"{"execute":"f2"}"#)
    let probe = try await Self.probe(conversation)
    // The server stopped in the middle of the first reply; some of those before the question are lost.
    let replies = [#"{"return": "f0"}"#, #"{"return": "f1"}"#, #"{"return": "own"}"#]
    try await conversation.server.write(replies.prefix(answered).joined() + #"{"return": {}, "id": "\#(probe)"}"# + #"{"return": "f2"}"#)
    #expect(try await after.soon().get() == #"{"return": "f2"}"#)
    for (number, outcome) in before.enumerated() {
      let result = try await outcome.soon()
      if number < answered { #expect(try result.get() == replies[number]) } else { #expect(result == .failure(.timedOut)) }
    }
    let next = conversation.begin("next")
    try await conversation.server.wait(for: #"{"execute":"next"}"#)
    try await conversation.server.write(Conversation.done)
    _ = try await next.soon().get()
  }

  @Test("a server that is stopped in the middle of a reply goes on with it, and that reply is not lost") @EventLoopActor
  func stoppedAmidReply() async throws {
    let conversation = try Conversation()
    let client = conversation.client
    client.responseLimit = .milliseconds(10)
    let forwarded = [Self.submit(#"{"execute":"f0"}"#, client), Self.submit(#"{"execute":"f1"}"#, client)]
    let own = conversation.begin("own")
    try await conversation.server.write(#"{"return": [1, "#)
    #expect(try await own.soon().error == .timedOut)
    client.responseLimit = nil
    let probe = try await Self.probe(conversation)
    try await conversation.server.write(
      "2]}\r\n" + Conversation.refusal + Conversation.done + #"{"return": {}, "id": "\#(probe)"}"# + "\r\n")
    #expect(try await forwarded[0].soon().get() == #"{"return": [1, 2]}"#)
    #expect(try await forwarded[1].soon().get() == String(Conversation.refusal.dropLast()))
    while !client.isResponding { try await quiet() }
  }

  @Test("a server that is pretty: each reply is its command's all the same, and on one line; so are events and the greeting")
  @EventLoopActor
  func pretty() async throws {
    let conversation = try Conversation()
    let client = conversation.client
    client.keepsEventText = true
    var events: [String] = []
    client.onEvent = { events.append(String(decoding: $0.text, as: UTF8.self)) }
    let negotiation = conversation.negotiate()
    try await conversation.server.write(
      "{\r\n    \"QMP\": {\r\n        \"version\": {\r\n            \"qemu\": {\r\n                \"micro\": 1\r\n            }\r\n        },\r\n"
        + "        \"capabilities\": [\r\n            \"oob\"\r\n        ]\r\n    }\r\n}\r\n{\r\n    \"return\": {\r\n    }\r\n}\r\n")
    _ = try await negotiation.soon().get()
    #expect(
      String(decoding: client.greetingText, as: UTF8.self)
        == #"{"QMP": {"version": {"qemu": {"micro": 1}}, "capabilities": ["oob"]}}"#)
    let first = Self.submit(#"{"execute":"a"}"#, client)
    let second = Self.submit(#"{"execute":"b"}"#, client)
    try await conversation.server.write(
      "{\r\n    \"timestamp\": {\r\n        \"seconds\": 1\r\n    },\r\n    \"event\": \"STOP\"\r\n}\r\n"
        + "{\r\n    \"return\": [\r\n        1,\r\n        \"a,  \\n  b\"\r\n    ],\r\n    \"id\": 1\r\n}\r\n{\r\n    \"return\": [\r\n    ]\r\n}\r\n"
    )
    #expect(try await first.soon().get() == #"{"return": [1, "a,  \n  b"], "id": 1}"#)
    #expect(try await second.soon().get() == #"{"return": []}"#)
    #expect(events == [#"{"timestamp": {"seconds": 1}, "event": "STOP"}"#])
  }

  @Test("typed commands that wait leave room for forwarded ones") @EventLoopActor
  func roomBesideTyped() async throws {
    let conversation = try Conversation()
    let commands = Array(repeating: QMPCommand("x"), count: QMPClient.maximumPending)
    startTask { _ = await conversation.client.pipeline(commands) }
    try await conversation.server.wait("all commands") { $0.received.count == commands.count * #"{"execute":"x"}"#.utf8.count }
    let forwarded = (0...QMPClient.maximumForwarded).map { Self.submit(#"{"execute":"f\#($0)"}"#, conversation.client) }
    try await conversation.server.wait(for: #"{"execute":"f\#(QMPClient.maximumForwarded - 1)"}"#)
    #expect(forwarded.map { $0.result == nil } == Array(repeating: true, count: QMPClient.maximumForwarded) + [false])
    #expect(try await forwarded[QMPClient.maximumForwarded].soon() == .failure(.overloaded))
  }

  @Test("who comes with a command while the connection ends is told so") @EventLoopActor
  func submittedAtTheEnd() async throws {
    let conversation = try Conversation()
    let client = conversation.client
    let last = Promise<Result<[UInt8], QMPError>>()
    client.submit(Array(#"{"execute":"a"}"#.utf8)) { [unowned client] _ in
      client.submit(Array(#"{"execute":"b"}"#.utf8)) { last.fulfil($0) }
    }
    try await conversation.server.wait(for: #"{"execute":"a"}"#)
    conversation.server.close()
    #expect(try await last.soon() == .failure(.disconnected))
  }

  @Test("the connection's end fails what waits") @EventLoopActor
  func end() async throws {
    let conversation = try Conversation()
    let waiting = Self.submit(#"{"execute":"a"}"#, conversation.client)
    try await conversation.server.wait(for: #"{"execute":"a"}"#)
    conversation.server.close()
    #expect(try await waiting.soon() == .failure(.disconnected))
    #expect(try await Self.submit(#"{"execute":"b"}"#, conversation.client).soon() == .failure(.disconnected))
  }
}
