import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing
import Varlink

@Suite(.onEventLoop) struct VarlinkClientTests {
  @Test("calls are answered, one after another") @EventLoopActor
  func reply() async throws {
    let service = try TestService()
    let client = try VarlinkClient(connectingTo: service.socket)
    for word in ["one", "two"] {
      let reply = try await client.call("test.service.Echo", .object(["text": .string(word)]), within: patience)
      #expect(reply == .object(["text": .string(word)]))
    }
  }

  @Test("a reply without parameters is an empty object") @EventLoopActor
  func emptyReply() async throws {
    let service = try TestService()
    try service.server.add(VarlinkInterface(parsing: "interface test.empty\n\nmethod Do() -> ()"))
    try service.server.bind("test.empty.Do") { _ in nil }
    #expect(try await VarlinkClient(connectingTo: service.socket).call("test.empty.Do", within: patience) == .object([:]))
  }

  @Test("an error reply is thrown with its name and parameters, and the connection goes on") @EventLoopActor
  func refusal() async throws {
    let service = try TestService()
    let client = try VarlinkClient(connectingTo: service.socket)
    let refused = await failure(of: client, "test.service.Fail", .object(["kind": .string("varlink")]))
    guard case .refused(let error)? = refused else {
      Issue.record("\(String(describing: refused))")
      return
    }
    #expect(error.name == "test.service.Sorry" && error.parameters?["why"]?.string == "thrown")
    #expect(refused?.description == #"test.service.Sorry {"why":"thrown"}"#)
    // An error of the service's that has the name of one of libsystemd's own is the service's still.
    try service.server.add(VarlinkInterface(parsing: "interface test.late\n\nmethod Do() -> ()"))
    try service.server.bind("test.late.Do") { _ in throw VarlinkError("io.systemd.TimedOut") }
    guard case .refused(let late)? = await failure(of: client, "test.late.Do"), late.parameters == nil else {
      Issue.record("not taken for the service's")
      return
    }
    #expect(try await client.call("test.service.Echo", .object(["text": .string("x")]), within: patience)["text"]?.string == "x")
  }

  @Test("a service that hangs up before it answers") @EventLoopActor
  func peerGone() async throws {
    let service = try TestService()
    let client = try VarlinkClient(connectingTo: service.socket)
    guard case .disconnected? = await failure(of: client, "test.service.Fail", .object(["kind": .string("hang-up")])) else {
      Issue.record("no disconnection")
      return
    }
    guard case .closed? = await failure(of: client, "test.service.Echo") else {
      Issue.record("the connection is over")
      return
    }
  }

  @Test("a service that does not speak Varlink") @EventLoopActor
  func notVarlink() async throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("socket")
    let listening = try ListeningSocket(at: path)
    startTask {
      if let connection = await listening.accept(), let peer = try? Peer(connection) { try? await peer.write("220 mail\r\n\0") }
    }
    let client = try VarlinkClient(connectingTo: path)
    guard case .disconnected? = await failure(of: client, "test.service.Echo") else {
      Issue.record("no disconnection")
      return
    }
    listening.close()
  }

  @Test("where nobody listens, and where nothing is") @EventLoopActor
  func nobody() async throws {
    let folder = try TemporaryFolder()
    try folder.file("file", [])
    for (name, errno) in [("missing", Errno.noSuchFileOrDirectory), ("file", .connectionRefused)] {
      do throws(VarlinkClientError) {
        _ = try VarlinkClient(connectingTo: folder.path.appending(name))
        Issue.record("connected to \(name)")
      } catch {
        guard case .connect(let error) = error else {
          Issue.record("\(error)")
          return
        }
        #expect(error.errno == errno)
      }
    }
  }

  @Test("an answer that does not come in time") @EventLoopActor
  func timeout() async throws {
    let service = try TestService()
    let client = try VarlinkClient(connectingTo: service.socket)
    guard case .timedOut? = await failure(of: client, "test.service.Wait", within: .milliseconds(20)) else {
      Issue.record("no time limit")
      return
    }
    // What comes late is no answer to the next call.
    service.release.fulfil(1)
    guard case .closed? = await failure(of: client, "test.service.Echo") else {
      Issue.record("the connection is over")
      return
    }
    try await service.wait("the caller's end") { $0.gone == 1 }
  }

  @Test("a call whose task is cancelled, or whose client is closed, hangs up", arguments: [true, false]) @EventLoopActor
  func cancellation(ofTask: Bool) async throws {
    let service = try TestService()
    let client = try VarlinkClient(connectingTo: service.socket)
    let outcome = Promise<VarlinkClientError?>()
    let task = startTask { outcome.fulfil(await failure(of: client, "test.service.Wait")) }
    try await service.wait("the call") { $0.waiting.count == 1 }
    if ofTask { task.cancel() } else { client.close() }
    guard case .closed? = try await outcome.soon("the end of the call") else {
      Issue.record("not closed")
      return
    }
    try await service.wait("the caller's end") { $0.gone == 1 }
    service.release.fulfil(1)
  }

  @Test("a hundred clients with all kinds of endings leave no descriptor behind")
  func leaks() async {
    await #expect(processExitsWith: .success) {
      try await inOwnProcess {
        try await everyEnding()
        try await quiet()
        let before = try openDescriptorCount()
        try await everyEnding()
        try await quiet()
        #expect(try openDescriptorCount() == before)
      }
    }
  }
}

/// How a call fails; nil if it does not.
@EventLoopActor
private func failure(
  of client: VarlinkClient, _ method: String, _ parameters: JSONVariant? = nil, within limit: Duration = patience
) async -> VarlinkClientError? {
  do {
    _ = try await client.call(method, parameters, within: limit)
    return nil
  } catch {
    return error
  }
}

@EventLoopActor
private func everyEnding() async throws {
  let service = try TestService()
  for index in 0..<100 {
    let client = try VarlinkClient(connectingTo: service.socket)
    switch index < 50 ? index % 5 : index % 2 {
    case 0: _ = try await client.call("test.service.Echo", .object(["text": .string("x")]), within: patience)
    case 1: _ = await failure(of: client, "test.service.Fail", .object(["kind": .string("hang-up")]))
    case 2: _ = await failure(of: client, "test.service.Wait", within: .milliseconds(1))
    case 3:
      let task = startTask { _ = await failure(of: client, "test.service.Wait") }
      task.cancel()
      await task.value
    default: break
    }
  }
  service.release.fulfil(1)
}
