import Glibc
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import QMP

@Suite(.onEventLoop) struct QMPPipelineTests {
  @Test("commands of one call go out at once, each descriptor with the first byte of its command") @EventLoopActor
  func atOnce() async throws {
    let conversation = try Conversation()
    let file = try pipePair()
    let outcome = Promise<[Result<JSONVariant, QMPError>]>()
    startTask {
      outcome.fulfil(
        await conversation.client.pipeline([
          QMPCommand("getfd", .object(["fdname": .string("a")]), descriptors: [file.reading]),
          QMPCommand("getfd", .object(["fdname": .string("b")]), descriptors: [file.writing]),
          QMPCommand("last"),
        ]))
    }
    let first = #"{"execute":"getfd","arguments":{"fdname":"a"}}"#
    let expected = first + #"{"execute":"getfd","arguments":{"fdname":"b"}}{"execute":"last"}"#
    var seen: [(bytes: Int, descriptors: Int)] = []
    try await conversation.server.wait("bytes") { peer in
      if !peer.received.isEmpty { seen.append((peer.received.count, peer.descriptors.raw.count)) }
      return peer.received.count >= expected.utf8.count
    }
    #expect(conversation.server.text == expected)
    // A QEMU that reads the first command must not have the second one's descriptor.
    #expect(seen.allSatisfy { $0.descriptors == ($0.bytes > first.utf8.count ? 2 : 1) }, "\(seen)")
    #expect(conversation.server.descriptors.raw.map(inode) == [inode(file.reading), inode(file.writing)])
    try await conversation.server.write(Conversation.done + Conversation.refusal)
    try await quiet()
    // All of them are waited for.
    #expect(outcome.result == nil)
    try await conversation.server.write(Conversation.done)
    let results = try await outcome.soon()
    #expect(results.map { $0.error == nil } == [true, false, true])
    #expect(results[1].error == .execute(command: "getfd", errorClass: "GenericError", desc: "no"))
    close(file.reading)
    close(file.writing)
  }

  @Test("descriptors stay the caller's") @EventLoopActor
  func descriptorsStay() async throws {
    let conversation = try Conversation()
    let file = try pipePair()
    startTask { _ = try? await conversation.client.execute("getfd", descriptors: [file.reading]) }
    try await conversation.serverGets("getfd")
    try await conversation.server.write(Conversation.done)
    try await quiet()
    #expect(isOpen(file.reading))
    close(file.reading)
    close(file.writing)
  }

  @Test("one command too many is refused at once, and the others are not lost") @EventLoopActor
  func overloaded() async throws {
    let conversation = try Conversation()
    let outcome = Promise<[Result<JSONVariant, QMPError>]>()
    let commands = Array(repeating: QMPCommand("x"), count: QMPClient.maximumPending)
    startTask { outcome.fulfil(await conversation.client.pipeline(commands)) }
    try await conversation.server.wait("all commands") { $0.received.count == commands.count * #"{"execute":"x"}"#.utf8.count }
    #expect(try await conversation.begin("y").soon().error == .overloaded)
    try await conversation.server.write(Conversation.done)
    try await conversation.server.write(String(repeating: Conversation.done, count: commands.count - 1))
    #expect(try await outcome.soon().allSatisfy { $0.error == nil })
    let next = conversation.begin("y")
    try await conversation.server.wait(for: #"{"execute":"y"}"#)
    try await conversation.server.write(Conversation.done)
    _ = try await next.soon().get()
  }

  @Test("a server that stops reading gets everything once it reads on") @EventLoopActor
  func backlog() async throws {
    let conversation = try Conversation()
    conversation.server.reads = false
    let padding = JSONVariant.string(String(repeating: "x", count: 4000))
    let outcomes = (0..<500).map { conversation.begin("c\($0)", .object(["padding": padding])) }
    try await quiet()
    conversation.server.reads = true
    let wrapping = #"{"execute":"c","arguments":{"padding":"xx"}}"#.utf8.count - 2 + 4000
    try await conversation.server.wait("all commands") { $0.received.count >= 500 * wrapping + (10 + 90 * 2 + 400 * 3) }
    let commands = conversation.server.text.split(separator: #"{"execute":""#).map { $0.prefix { $0 != "\"" } }
    #expect(Set(commands) == Set((0..<500).map { "c\($0)" }))
    for command in commands { try await conversation.server.write(#"{"return": "\#(command)"}"#) }
    for (number, outcome) in outcomes.enumerated() { #expect(try await outcome.soon().get().string == "c\(number)") }
  }

  @Test("descriptors of a command that had to wait come with it") @EventLoopActor
  func backlogWithDescriptors() async throws {
    let conversation = try Conversation()
    conversation.server.reads = false
    let file = try pipePair()
    _ = conversation.begin("long", .object(["padding": .string(String(repeating: "x", count: 1_000_000))]))
    try await quiet()
    startTask { _ = try? await conversation.client.execute("getfd", descriptors: [file.reading]) }
    try await quiet()
    conversation.server.reads = true
    try await conversation.server.wait("the command") { $0.received.suffix(19).elementsEqual(#"{"execute":"getfd"}"#.utf8) }
    #expect(conversation.server.descriptors.raw.map(inode) == [inode(file.reading)])
    close(file.reading)
    close(file.writing)
  }

  @Test("commands that are not answered in time fail, and so do further ones, until the server answers again") @EventLoopActor
  func notResponding() async throws {
    let conversation = try Conversation()
    let client = conversation.client
    var changes: [Bool] = []
    client.onRespondingChange = { [unowned client] in changes.append(client.isResponding) }
    client.responseLimit = .milliseconds(10)
    let outcomes = [conversation.begin("a"), conversation.begin("b")]
    for outcome in outcomes { #expect(try await outcome.soon().error == .timedOut) }
    #expect(try await conversation.begin("c").soon().error == .timedOut)
    #expect(changes == [false])
    client.responseLimit = nil
    // One reply comes late, one never does; what tells is the answer to a question that has an id.
    try await conversation.server.write(#"{"return": "late"}"#)
    try await quiet()
    #expect(changes == [false])
    let probe = try #require(conversation.server.text.split(separator: #""id":""#).last?.prefix { $0 != "\"" })
    try await conversation.server.write(#"{"return": {}, "id": "\#(probe)"}"#)
    while changes.count < 2 { try await quiet() }
    #expect(changes == [false, true])
    let next = conversation.begin("d")
    try await conversation.server.wait(for: #"{"execute":"d"}"#)
    try await conversation.server.write(#"{"return": "mine"}"#)
    #expect(try await next.soon().get().string == "mine")
  }

  @Test("what is enabled is negotiated, and a command out of band says that it is one") @EventLoopActor
  func outOfBand() async throws {
    let conversation = try Conversation()
    let greeting = Promise<Greeting?>()
    startTask { greeting.fulfil(try? await conversation.client.negotiate(enabling: ["oob"])) }
    try await conversation.server.wait(for: #"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#)
    try await conversation.server.write(Conversation.greeting + Conversation.done)
    #expect(try await greeting.soon()?.capabilities == ["oob"])
    let outcome = Promise<Bool>()
    startTask { outcome.fulfil(await conversation.client.pipeline([QMPCommand("yank", .object([]), isOutOfBand: true)])[0].error == nil) }
    try await conversation.server.wait(for: #"{"exec-oob":"yank","arguments":{}}"#)
    try await conversation.server.write(Conversation.done)
    #expect(try await outcome.soon())
  }
}
