import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import QMP

@Suite("descriptors that the system does not pass on", .onEventLoop) struct UnsentDescriptorTests {
  /// No process of tests has so many.
  private static let noDescriptor: CInt = 1_000_000_000

  @Test("fail their own command, and what goes with it is sent", arguments: [false, true]) @EventLoopActor
  func others(mustWait: Bool) async throws {
    let conversation = try Conversation()
    if mustWait { conversation.server.reads = false }
    let long = conversation.begin("long", .object(["padding": .string(String(repeating: "x", count: mustWait ? 1_000_000 : 1))]))
    let outcome = Promise<[Result<JSONVariant, QMPError>]>()
    startTask {
      outcome.fulfil(
        await conversation.client.pipeline([
          QMPCommand("first"), QMPCommand("getfd", descriptors: [Self.noDescriptor]), QMPCommand("second"),
          QMPCommand("add-fd", descriptors: [Self.noDescriptor]), QMPCommand("third"),
        ]))
    }
    try await quiet()
    conversation.server.reads = true
    let expected = #"{"execute":"first"}{"execute":"second"}{"execute":"third"}"#
    try await conversation.server.wait("the others") { $0.received.suffix(expected.utf8.count).elementsEqual(expected.utf8) }
    #expect(conversation.server.descriptors.raw == [])
    try await conversation.server.write(Conversation.done)
    for number in 1...3 { try await conversation.server.write(#"{"return": \#(number)}"#) }
    #expect(try await long.soon().error == nil)
    let results = try await outcome.soon()
    #expect(results.map(\.error) == [nil, .notSent(.badFileDescriptor), nil, .notSent(.badFileDescriptor), nil])
    #expect([0, 2, 4].map { try? results[$0].get().integer } == [1, 2, 3])
  }

  @Test("leave a command that is somebody else's in its place, without them", arguments: [false, true]) @EventLoopActor
  func forwarded(mustWait: Bool) async throws {
    let conversation = try Conversation()
    if mustWait { conversation.server.reads = false }
    _ = conversation.begin("long", .object(["padding": .string(String(repeating: "x", count: mustWait ? 1_000_000 : 1))]))
    try await quiet()
    var replies: [String] = []
    for (text, descriptors) in [("a", []), ("add-fd", [Self.noDescriptor]), ("b", [])] {
      conversation.client.submit(Array(#"{"execute":"\#(text)"}"#.utf8), descriptors: descriptors) { reply in
        replies.append((try? reply.get()).map { String(decoding: $0, as: UTF8.self) } ?? "none")
      }
    }
    conversation.server.reads = true
    let expected = #"{"execute":"a"}{"execute":"add-fd"}{"execute":"b"}"#
    try await conversation.server.wait("all of them") { $0.received.suffix(expected.utf8.count).elementsEqual(expected.utf8) }
    try await conversation.server.write(Conversation.done + Conversation.done + Conversation.refusal + Conversation.done)
    while replies.count < 3 { try await quiet() }
    #expect(replies.map { $0 + "\r\n" } == [Conversation.done, Conversation.refusal, Conversation.done])
  }

  @Test("a process without a descriptor to spare says so to whom it concerns, and goes on")
  func outOfDescriptors() async {
    await #expect(processExitsWith: .success) {
      try await inOwnProcess {
        let conversation = try Conversation()
        let file = try pipePair()
        conversation.server.reads = false
        let long = conversation.begin("long", .object(["padding": .string(String(repeating: "x", count: 1_000_000))]))
        try await quiet()
        var limit = rlimit()
        try #require(getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
        let lowestFree = dup(file.reading)
        close(lowestFree)
        var none = rlimit(rlim_cur: rlim_t(lowestFree), rlim_max: limit.rlim_max)
        try #require(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &none) == 0)
        let failed = await conversation.client.pipeline([QMPCommand("getfd", descriptors: [file.reading])])[0]
        try #require(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
        try #require(failed.error == .notSent(.tooManyOpenFiles))
        try #require(failed.error?.isUncertain == false)
        startTask { _ = try? await conversation.client.execute("getfd", descriptors: [file.reading]) }
        try await quiet()
        conversation.server.reads = true
        try await conversation.server.wait("the second try") { $0.received.suffix(19).elementsEqual(#"{"execute":"getfd"}"#.utf8) }
        try #require(conversation.server.descriptors.raw.map(inode) == [inode(file.reading)])
        try await conversation.server.write(Conversation.done + Conversation.done)
        _ = try await long.soon().get()
      }
    }
  }
}
