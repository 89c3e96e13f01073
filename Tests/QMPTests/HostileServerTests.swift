import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import QMP

@Suite("a server that does not speak QMP", .onEventLoop) struct HostileServerTests {
  struct Case: CustomTestStringConvertible {
    let testDescription: String
    let bytes: [UInt8]

    init(_ what: String, _ text: String) {
      testDescription = what
      bytes = Array(text.utf8)
    }
    init(_ what: String, bytes: [UInt8]) {
      testDescription = what
      self.bytes = bytes
    }
  }

  static func deep(_ depth: Int) -> String {
    #"{"return":"# + String(repeating: "[", count: depth) + String(repeating: "]", count: depth) + "}"
  }

  static let cases = [
    Case("HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n"),
    Case("an array", "[]"),
    Case("a message of no kind", #"{"hello": 1}"#),
    Case("broken JSON", #"{"return": }"#),
    Case("brackets that do not match", #"{"return": [}}"#),
    Case("an error without desc", #"{"error": {"class": "C"}}"#),
    Case("more replies than commands", #"{"return": {}}{"return": {}}"#),
    Case("more error replies than commands", Conversation.refusal + Conversation.refusal),
    Case("invalid UTF-8 in a string", bytes: Array(#"{"return": ""#.utf8) + [0xC3, 0x28] + Array(#""}"#.utf8)),
    Case("a lone surrogate", #"{"return": "\ud800"}"#),
    Case("a NUL in a string", #"{"return": "a"# + "\0" + #"b"}"#),
    Case("nesting deeper than is passed on", deep(QMPClient.deepestMessage)),
    Case("nesting of 5000", deep(5000)),
    Case("nesting of 300000", deep(300_000)),
    Case("0xFF", bytes: [0xFF]),
  ]

  @Test("ends the connection with badReply, and nothing else", arguments: cases) @EventLoopActor
  func badReply(_ test: Case) async throws {
    let conversation = try Conversation()
    let outcome = conversation.begin("a")
    try await conversation.serverGets("a")
    try? await conversation.server.write(test.bytes)
    guard case .badReply(let reason) = try await conversation.client.disconnected.soon() else {
      Issue.record("\(String(describing: conversation.client.disconnected.result))")
      return
    }
    #expect(!reason.isEmpty)
    if let error = try await outcome.soon().error {
      #expect(
        error == conversation.client.disconnected.result
          || error == .execute(command: "a", errorClass: "GenericError", desc: "no"))
    }
    try await conversation.server.waitForEnd()
  }

  @Test("a message that does not end is given up at the limit") @EventLoopActor
  func endless() async throws {
    let conversation = try Conversation()
    let outcome = conversation.begin("a")
    try await conversation.serverGets("a")
    try await conversation.server.write(#"{"return": ""#)
    let piece = [UInt8](repeating: UInt8(ascii: "x"), count: 1 << 20)
    for _ in 0..<QMPClient.maximumMessage >> 20 {
      // It may be over before all is written.
      do { try await conversation.server.write(piece) } catch { break }
    }
    #expect(
      try await conversation.client.disconnected.soon() == .badReply("it is longer than \(QMPClient.maximumMessage) bytes"))
    #expect(try await outcome.soon().error == conversation.client.disconnected.result)
  }

  /// A connection whose server has greeted.
  @EventLoopActor
  private static func greeted() async throws -> Conversation {
    let conversation = try Conversation()
    let negotiation = conversation.negotiate()
    try await conversation.server.write(Conversation.greeting + Conversation.done)
    _ = try await negotiation.soon().get()
    // The server may have answered what it has not read yet.
    try await conversation.serverGets("qmp_capabilities")
    conversation.server.forget()
    return conversation
  }

  @Test("QEMU's reply that is too long fails its own call, and no other") @EventLoopActor
  func tooLongReply() async throws {
    let conversation = try await Self.greeted()
    let forwarded = Promise<Result<[UInt8], QMPError>>()
    conversation.client.submit(Array(#"{"execute":"f"}"#.utf8)) { forwarded.fulfil($0) }
    let typed = conversation.begin("a")
    let next = conversation.begin("b")
    try await conversation.serverGets("f", "a", "b")
    let piece = Array(String(repeating: #"\n{\"return\": 1}"#, count: 1 << 16).utf8)
    for _ in 0..<2 {
      try await conversation.server.write(#"{"return": ""#)
      for _ in 0...QMPClient.maximumMessage / piece.count { try await conversation.server.write(piece) }
      try await conversation.server.write("\"}\r\n")
    }
    try await conversation.server.write(#"{"return": "mine"}"#)
    let expected = QMPError.unreadableReply("it is longer than \(QMPClient.maximumMessage) bytes")
    #expect(try await forwarded.soon() == .failure(expected))
    #expect(try await typed.soon().error == expected)
    #expect(try await next.soon().get().string == "mine")
    #expect(conversation.client.disconnected.result == nil)
  }

  @Test(
    "a reply that is whole and cannot be parsed fails its own call only",
    arguments: [
      #"{"return": "a\u0000"}"#, #"{"return": }"#, #"{"return": "\ud800"}"#, #"{"return": inf}"#, deep(5000),
      "{\r\n    \"return\": \"\\u0000\"\r\n}",
    ])
  @EventLoopActor
  func unreadable(reply: String) async throws {
    let conversation = try await Self.greeted()
    let first = conversation.begin("a")
    let second = conversation.begin("b")
    try await conversation.serverGets("a", "b")
    try await conversation.server.write(reply + "\r\n" + #"{"return": 2}"# + "\r\n")
    guard case .unreadableReply? = try await first.soon().error else {
      Issue.record("\(try await first.soon())")
      return
    }
    #expect(try await second.soon().get().integer == 2)
    #expect(conversation.client.disconnected.result == nil)
  }

  @Test("an event that cannot be parsed has its text, and nothing else happens") @EventLoopActor
  func unreadableEvent() async throws {
    let conversation = try await Self.greeted()
    conversation.client.keepsEventText = true
    var events: [QMPEvent] = []
    conversation.client.onEvent = { events.append($0) }
    let call = conversation.begin("a")
    try await conversation.serverGets("a")
    let event = #"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "X", "data": {"id": "\u0000"}}"#
    try await conversation.server.write(event + "\r\n" + #"{"return": 1}"#)
    #expect(try await call.soon().get().integer == 1)
    #expect(events.map { String(decoding: $0.text, as: UTF8.self) } == [event])
    #expect(events.map(\.isReadable) == [false])
  }
}
