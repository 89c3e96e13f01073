import Glibc
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import Relay

@Suite("a session goes on in another run of the daemon", .onEventLoop) struct RelayHandoverTests {
  private static let commands = """
     {"execute": "qmp_capabilities"}
    {"execute": "query-name",  "id": "a \\" b"} {"execute":"x", "arguments": {"deep": [1, {"er": null}]}}
    """
  private static let forwarded =
    #"{"execute":"qmp_capabilities"}{"execute":"query-name","id":"a \" b"}{"execute":"x","arguments":{"deep":[1,{"er":null}]}}"#

  @Test("after every byte of its commands, and of the replies") @EventLoopActor
  func everyByte() async throws {
    let session = try Session()
    for byte in Self.commands.utf8 {
      try await session.connected.write([byte])
      try await session.handOver()
    }
    #expect(session.monitor.text == Self.forwarded)
    let replies = #"{"return": {}}"# + "\r\n" + #"{"timestamp": {}, "event": "X"}"# + "\r\n" + #"{"return": [{}]}"# + "\r\n"
    for byte in replies.utf8 {
      try await session.monitor.write([byte])
      try await session.handOver()
    }
    #expect(try session.connected.text == replies)
    #expect(session.relay.statistics.commands == 3 && session.relay.statistics.replies == 2)
    #expect(session.relay.isNegotiated && session.relay.commandsInFlight == 1)
    #expect(session.relay.statistics.bytesFromClient == Self.commands.utf8.count)
  }

  @Test("after every byte of its drain") @EventLoopActor
  func drain() async throws {
    let session = try Session()
    try await session.connected.write("{}{")
    try session.connected.endWriting()
    let nonce = try await session.monitor.drainNonce()
    let owed = "reply\r\n" + Lines.lexerError
    for byte in (owed + Lines.lexerError + Lines.answer(nonce)).utf8 {
      try await session.handOver()
      try await session.monitor.write([byte])
    }
    #expect(try await session.end() == .drained)
    try await session.connected.waitForEnd()
    #expect(try session.connected.text == owed)
  }

  @Test("with refusals among the replies") @EventLoopActor
  func refusals() async throws {
    var options = Relay.Options()
    options.refusal = { $0["execute"]?.string == "stop" ? "no" : nil }
    let session = try Session(options)
    try await session.connected.write(#"{"execute":"stop","id":1}"#)
    try await session.monitor.wait("the placeholder") { $0.text.hasSuffix("}") }
    let placeholder = session.monitor.text
    let id = try #require(placeholder.firstMatch(of: /"id":"([^"]*)"/)?.1)
    try await session.handOver()
    try await session.connected.write(#"{"execute":"cont"}"#)
    for byte in (#"{"id": "\#(id)", "error": {"class": "CommandNotFound", "desc": ""}}"# + "\r\n" + #"{"return": {}}"# + "\r\n").utf8 {
      try await session.monitor.write([byte])
      try await session.handOver()
    }
    try await session.connected.wait(for: #"{"return": {}}"#)
    #expect(try session.connected.text.hasPrefix(#"{"id":1,"error":{"class":"GenericError","desc":"no"}}"#))
    #expect(session.monitor.text.hasSuffix(#"{"execute":"cont"}"#))
  }

  @Test("with much that waits for a client that does not read, and for a monitor that does not") @EventLoopActor
  func backlogs() async throws {
    let session = try Session()
    let (up, down) = (sample(2_000_000), sample(3_000_000))
    try session.connected.reads = false
    session.monitor.reads = false
    async let sending: Void = session.connected.write(up)
    try await session.monitor.write(down)
    for _ in 0..<5 { try await session.handOver() }
    try session.connected.reads = true
    session.monitor.reads = true
    for _ in 0..<5 { try await session.handOver() }
    try await sending
    try await session.monitor.wait("all bytes") { $0.received.count >= up.count }
    try await session.connected.wait("all bytes") { $0.received.count >= down.count }
    #expect(session.monitor.received == up)
    #expect(try session.connected.received == down)
  }

  @Test("with descriptors under way") @EventLoopActor
  func descriptors() async throws {
    let session = try Session()
    let file = try pipePair()
    let command = #"{"execute":"getfd","arguments":{"fdname":"x"}}"#
    try await session.connected.write("{", descriptors: [file.reading])
    try await session.handOver()
    try await session.connected.write(command.dropFirst().utf8)
    try await session.monitor.wait(for: command)
    #expect(session.monitor.descriptors.raw.map(inode) == [inode(file.reading)])
    try await session.handOver()
    try session.connected.endWriting()
    try await session.monitor.wait(for: #"{"execute":"closefd","arguments":{"fdname":"x"}"#)
    close(file.reading)
    close(file.writing)
  }

  @Test("behind two pipes, and with a client that goes meanwhile") @EventLoopActor
  func pipes() async throws {
    let (input, output) = try (pipePair(), pipePair())
    let session = try Session(client: Peer(OwnedDescriptor(owning: output.reading)), input: input.reading, output: output.writing)
    try await session.handOver()
    #expect(write(input.writing, "{}", 2) == 2)
    try await session.monitor.wait(for: "{}")
    try await session.handOver()
    try await session.monitor.write("reply\r\n")
    try await session.connected.wait(for: "reply")
    close(input.writing)
    try await session.handOver()
    try await session.monitor.answerDrain()
    #expect(try await session.end() == .drained)
    try await session.connected.waitForEnd()
  }

  @Test("in the middle of a command that is too long to be held") @EventLoopActor
  func streaming() async throws {
    let session = try Session()
    let command = #"{"execute": ""# + String(repeating: "x", count: CommandStream.longestHeld) + #"", "id": "a  b"}"#
    try await session.connected.write(String(command.dropLast(9)))
    try await session.handOver()
    try await session.connected.write(String(command.suffix(9)) + #" {"execute": "query-name"}"#)
    try await session.monitor.wait(for: "query-name")
    #expect(session.monitor.text == command + #" {"execute": "query-name"}"#)
  }

  @Test("what no run has written is refused") @EventLoopActor
  func unreadable() async throws {
    for text in ["null", "{}", #"{"commands":{}}"#, "[]"] {
      let handover = Handover(try JSONVariant(parsing: text), descriptors: [])
      #expect(throws: Handover.Failure.self) { _ = try Relay(carried: handover.value, handover, options: Relay.Options()) }
    }
  }
}
