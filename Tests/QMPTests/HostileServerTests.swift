import SystemdEvent
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
      try await conversation.client.disconnected.soon()
        == .badReply("\(MessageSplitter.Fault.tooLong(limit: QMPClient.maximumMessage))"))
    #expect(try await outcome.soon().error == conversation.client.disconnected.result)
  }
}
