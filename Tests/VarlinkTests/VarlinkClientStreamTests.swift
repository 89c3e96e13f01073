import Glibc
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing
import Varlink

@Suite(.onEventLoop) struct VarlinkClientStreamTests {
  @Test("each reply of a stream is handed over, and the last one returned") @EventLoopActor
  func stream() async throws {
    let service = try TestService()
    let client = try VarlinkClient(OwnedDescriptor.connected(to: service.socket))
    var numbers: [Int64?] = []
    let last = try await client.observe("test.service.Count", .object(["to": .integer(3)]), within: patience) {
      numbers.append($0["number"]?.integer)
    }
    #expect(numbers + [last["number"]?.integer] == [1, 2, 3])
    // The connection goes on.
    #expect(try await client.call("test.service.Echo", .object(["text": .string("x")]), within: patience)["text"]?.string == "x")
  }

  @Test("a stream whose first reply does not come in time, and one that is closed") @EventLoopActor
  func streamEnds() async throws {
    let service = try TestService()
    let silent = try VarlinkClient(connectingTo: service.socket)
    await #expect(throws: VarlinkClientError.self) {
      try await silent.observe("test.service.Wait", within: .milliseconds(20)) { _ in }
    }
    let closed = try VarlinkClient(connectingTo: service.socket)
    startTask {
      try? await service.wait("the call") { $0.waiting.count == 2 }
      closed.close()
    }
    do {
      _ = try await closed.observe("test.service.Wait", within: patience) { _ in }
      Issue.record("no error")
    } catch {
      if case .closed = error {} else { Issue.record("\(error)") }
    }
    service.release.fulfil(0)
  }

  @Test("behind the reply to an upgrade all bytes are the caller's, before a call or after one", arguments: [false, true]) @EventLoopActor
  func upgrade(callsFirst: Bool) async throws {
    let service = try TestService()
    let client = try VarlinkClient(connectingTo: service.socket)
    if callsFirst { _ = try await client.call("test.service.Echo", .object(["text": .string("x")]), within: patience) }
    let upgraded = try await client.upgrade("test.service.Raw", within: patience)
    #expect(upgraded.reply["hello"]?.string == "raw")
    let raw = try Peer(upgraded.takeDescriptor())
    try await service.wait("the upgrade") { $0.rawPeers.count == 1 }
    try await service.rawPeers[0].write([0, 1, 2])
    try await raw.wait("bytes") { $0.received == [0, 1, 2] }
    try await raw.write("there")
    try await service.rawPeers[0].wait(for: "there")
    raw.close()
    try await service.rawPeers[0].waitForEnd()
  }

  @Test("an upgrade reads its reply in any pieces, and not a byte of what follows", arguments: [1, 7, 1000]) @EventLoopActor
  func pieces(size: Int) async throws {
    let pair = try SocketPair()
    let far = try Peer(OwnedDescriptor(owning: dup(pair.theirs.raw)))
    let client = try VarlinkClient(pair.takeOurs())
    startTask {
      try? await far.wait("the call") { $0.received.last == 0 }
      let text = far.text
      if !text.contains(#""upgrade":true"#) { Issue.record("\(text)") }
      let bytes = Array(#"{"parameters":{"id":"\#(String(repeating: "x", count: 5000))"}}"#.utf8) + [0] + Array("raw\0raw".utf8)
      var rest = bytes[...]
      while !rest.isEmpty {
        try? await far.write(rest.prefix(size))
        rest = rest.dropFirst(size)
        await Task.yield()
      }
    }
    let upgraded = try await client.upgrade("test.service.Raw", within: patience)
    #expect(upgraded.reply["id"]?.string?.count == 5000)
    let raw = try Peer(upgraded.takeDescriptor())
    try await raw.wait(for: "raw\0raw")
    #expect(raw.text == "raw\0raw")
  }

  @Test(
    "an upgrade that is refused, cut off, or answered with something else",
    arguments: [
      (#"{"error":"test.service.Sorry","parameters":{"why":"no"}}"# + "\0", "test.service.Sorry {\"why\":\"no\"}"),
      (#"{"parameters":{"#, "the service hung up"), ("", "the service hung up"), ("[]\0", "the service hung up"),
      (String(repeating: "x", count: 100_000), "the service hung up"),
    ]) @EventLoopActor
  func refusedUpgrade(answer: String, expected: String) async throws {
    let pair = try SocketPair()
    let far = try Peer(OwnedDescriptor(owning: dup(pair.theirs.raw)))
    let client = try VarlinkClient(pair.takeOurs())
    startTask {
      try? await far.wait("the call") { $0.received.last == 0 }
      try? await far.write(answer)
      far.close()
    }
    do {
      _ = try await client.upgrade("test.service.Raw", within: patience)
      Issue.record("no error")
    } catch {
      #expect(error.description == expected)
    }
  }

  @Test("an upgrade that is not answered in time") @EventLoopActor
  func silence() async throws {
    let pair = try SocketPair()
    let far = OwnedDescriptor(owning: dup(pair.theirs.raw))
    let client = try VarlinkClient(pair.takeOurs())
    do {
      _ = try await client.upgrade("test.service.Raw", within: .milliseconds(20))
      Issue.record("no error")
    } catch {
      if case .timedOut = error {} else { Issue.record("\(error)") }
    }
    withExtendedLifetime(far) {}
  }

  @Test("a descriptor goes with a call") @EventLoopActor
  func descriptor() async throws {
    let service = try TestService()
    let client = try VarlinkClient(connectingTo: service.socket)
    let file = try OwnedDescriptor.inMemory("test")
    #expect(write(file.raw, "contents", 8) == 8 && lseek(file.raw, 0, SEEK_SET) == 0)
    let reply = try await client.call(
      "test.service.Read", .object(["fileDescriptorIndex": .integer(0)]), descriptors: [file.raw], within: patience)
    #expect(reply["text"]?.string == "contents")
  }
}
