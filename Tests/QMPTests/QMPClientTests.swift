import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import QMP

@Suite(.onEventLoop) struct QMPClientTests {
  @Test("an event has its text, byte for byte, when that is asked for") @EventLoopActor
  func eventText() async throws {
    for isAsked in [true, false] {
      let conversation = try Conversation()
      conversation.client.keepsEventText = isAsked
      var events: [QMPEvent] = []
      let second = Promise<Void>()
      conversation.client.onEvent = {
        events.append($0)
        if events.count == 2 { second.fulfil() }
      }
      let event = #"{"timestamp": {"seconds": 1,  "microseconds":2}, "event": "X\u0041"}"#
      try await conversation.server.write(event + "\r\n" + event + "\r\n")
      try await second.soon()
      for got in events { #expect(got.name == "XA" && String(decoding: got.text, as: UTF8.self) == (isAsked ? event : "")) }
    }
  }

  @Test("a command is written in its shortest form") @EventLoopActor
  func wireForm() async throws {
    let conversation = try Conversation()
    let first = conversation.begin("qmp_capabilities")
    try await conversation.server.wait(for: "}")
    #expect(conversation.server.text == #"{"execute":"qmp_capabilities"}"#)
    let arguments = try JSONVariant(parsing: #"{ "id": "a b", "list": [ 1, true, null ] }"#)
    let second = conversation.begin("object-add", arguments)
    try await conversation.server.wait(for: "]}}")
    #expect(
      conversation.server.text
        == #"{"execute":"qmp_capabilities"}{"execute":"object-add","arguments":{"id":"a b","list":[1,true,null]}}"#)
    try await conversation.server.write(Conversation.done + Conversation.done)
    _ = try await (first.soon().get(), second.soon().get())
  }

  @Test("many callers at once get their own replies") @EventLoopActor
  func manyCallers() async throws {
    let conversation = try Conversation()
    let outcomes = (0..<200).map { conversation.begin("c\($0)") }
    try await conversation.server.wait("all commands") { $0.text.components("}") == 200 }
    // They are answered in the order in which they came, whatever that is.
    let order = conversation.server.text.split(separator: #"{"execute":"c"#).map { $0.dropLast(2) }
    for (place, number) in order.enumerated() {
      let reply = place % 3 == 0 ? #"{"error": {"class": "C", "desc": "\#(number)"}}"# : #"{"return": \#(number)}"#
      try await conversation.server.write(reply + "\r\n")
    }
    for (number, outcome) in outcomes.enumerated() {
      switch try await outcome.soon() {
      case .success(let value): #expect(value.integer == Int64(number))
      case .failure(let error): #expect(error == .execute(command: "c\(number)", errorClass: "C", desc: "\(number)"))
      }
    }
  }

  @Test("events between replies come in their place", arguments: [1, 7, 10_000]) @EventLoopActor
  func events(chunk: Int) async throws {
    let conversation = try Conversation()
    var seen: [String] = []
    conversation.client.onEvent = { seen.append("\($0.name) \($0.data?.text ?? "-")") }
    let outcomes = [conversation.begin("a"), conversation.begin("b")]
    try await conversation.serverGets("a", "b")
    let event = { (name: String) in
      #"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "\#(name)", "data": {"x": 1}}"# + "\r\n"
    }
    let text = Array((event("ONE") + Conversation.done + event("TWO") + event("THREE") + Conversation.done + event("FOUR")).utf8)
    for start in stride(from: 0, to: text.count, by: chunk) {
      try await conversation.server.write(text[start..<min(text.count, start + chunk)])
      if chunk < 100 { try await quiet() }
    }
    _ = try await (outcomes[0].soon().get(), outcomes[1].soon().get())
    try await quiet()
    #expect(seen == ["ONE", "TWO", "THREE", "FOUR"].map { "\($0) {\"x\":1}" })
  }

  @Test("an error reply is told with the command, QEMU's class and its words") @EventLoopActor
  func errorReply() async throws {
    let conversation = try Conversation()
    let outcome = conversation.begin("device_add")
    try await conversation.serverGets("device_add")
    try await conversation.server.write(#"{"error": {"class": "DeviceNotFound", "desc": "Device 'x' \"not\" found"}}"# + "\r\n")
    #expect(
      try await outcome.soon().error
        == .execute(command: "device_add", errorClass: "DeviceNotFound", desc: "Device 'x' \"not\" found"))
  }

  @Test("when the server goes, every command fails, and further ones at once") @EventLoopActor
  func serverGoes() async throws {
    let conversation = try Conversation()
    let answered = conversation.begin("first")
    let outcomes = (0..<10).map { conversation.begin("c\($0)") }
    try await conversation.server.wait("the commands") { $0.text.components("}") == 11 }
    try await conversation.server.write(Conversation.done + #"{"retu"#)
    conversation.server.close()
    _ = try await answered.soon().get()
    for outcome in outcomes { #expect(try await outcome.soon().error == .disconnected) }
    #expect(try await conversation.client.disconnected.soon() == .disconnected)
    await #expect(throws: QMPError.disconnected) { try await conversation.client.execute("late") }
  }

  @Test("closing fails what is in flight, and the server sees the end") @EventLoopActor
  func closing() async throws {
    let conversation = try Conversation()
    let outcome = conversation.begin("a")
    try await conversation.serverGets("a")
    conversation.client.close()
    conversation.client.close()
    #expect(try await outcome.soon().error == .disconnected)
    #expect(conversation.client.disconnected.result == .disconnected)
    try await conversation.server.waitForEnd()
  }

  @Test("a client that an event handler closes is closed") @EventLoopActor
  func closedByAnEvent() async throws {
    let conversation = try Conversation()
    var count = 0
    conversation.client.onEvent = { [weak client = conversation.client] _ in
      count += 1
      client?.close()
    }
    let outcome = conversation.begin("a")
    try await conversation.serverGets("a")
    let event = #"{"timestamp": {}, "event": "E"}"# + "\r\n"
    try await conversation.server.write(event + event + Conversation.done)
    #expect(try await outcome.soon().error == .disconnected)
    #expect(count == 1)
  }

  @Test("a client that is let go of ends its connection") @EventLoopActor
  func letGo() async throws {
    let (ours, theirs) = try socketPair()
    let server = try Peer(OwnedDescriptor(owning: theirs))
    var client: QMPClient? = try QMPClient(OwnedDescriptor(owning: ours))
    #expect(client?.disconnected.result == nil)
    client = nil
    try await server.waitForEnd()
  }

  @Test("a socket that is not there cannot be connected to") @EventLoopActor
  func notThere() throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("socket")
    #expect(throws: QMPError.connect(path: path.string, .noSuchFileOrDirectory)) { try QMPClient(connectingTo: path) }
    try folder.file("socket", [])
    #expect(throws: QMPError.connect(path: path.string, .connectionRefused)) { try QMPClient(connectingTo: path) }
    let long = FilePath("/tmp/" + String(repeating: "x", count: 200))
    #expect(throws: QMPError.connect(path: long.string, .fileNameTooLong)) { try QMPClient(connectingTo: long) }
  }
}

extension String {
  /// How often a character occurs.
  func components(_ character: Character) -> Int { count { $0 == character } }
}
