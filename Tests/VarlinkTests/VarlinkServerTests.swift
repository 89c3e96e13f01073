import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing
import Varlink

@Suite(.onEventLoop) struct VarlinkServerTests {
  @Test("the server tells who it is and what it serves") @EventLoopActor
  func information() async throws {
    let service = try TestService()
    let reply = try JSONVariant(parsing: try await service.connect().call("org.varlink.service.GetInfo"))
    let information = try #require(reply["parameters"])
    #expect(information["vendor"]?.string == "a vendor")
    #expect(information["product"]?.string == "a product")
    #expect(information["version"]?.string == "1.2")
    #expect(information["url"]?.string == "https://example.org")
    #expect(information["interfaces"]?.elements?.compactMap(\.string).contains("test.service") == true)
  }

  @Test("the interface's text can be asked for") @EventLoopActor
  func description() async throws {
    let service = try TestService()
    let reply = try await service.connect().call(
      "org.varlink.service.GetInterfaceDescription", #"{"interface":"test.service"}"#)
    let text = try JSONVariant(parsing: reply)["parameters"]?["description"]?.string
    #expect(try text == VarlinkInterface(parsing: TestService.text, kinds: TestService.kinds).text)
  }

  @Test("the socket has its mode, takes the place of a dead server's, and lets callers wait") @EventLoopActor
  func socketFile() async throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("socket")
    var dead: VarlinkServer? = try VarlinkServer(.init(vendor: "", product: "", version: "")) { _ in .expectedMore }
    try dead?.listen(on: path, mode: 0o600)
    dead = nil
    let server = try VarlinkServer(.init(vendor: "v", product: "p", version: "1")) { _ in .expectedMore }
    try server.listen(on: path, mode: 0o600)
    var status = stat()
    #expect(stat(path.string, &status) == 0)
    #expect(status.st_mode == S_IFSOCK | 0o600)
    let client = TestSupport.VarlinkPeer(try Peer(OwnedDescriptor.connected(to: path)))
    try await client.send("org.varlink.service.GetInfo")
    try await quiet()
    #expect(client.peer.received.isEmpty)
    try server.serve()
    #expect(try await client.receive().contains("\"p\""))
    withExtendedLifetime(server) {}
  }

  @Test("a path that cannot be listened on is an error") @EventLoopActor
  func badPath() throws {
    let server = try VarlinkServer(.init(vendor: "", product: "", version: "")) { _ in .expectedMore }
    #expect(throws: SystemdError("cannot listen at /nowhere/at/all/socket", .noSuchFileOrDirectory)) {
      try server.listen(on: "/nowhere/at/all/socket", mode: 0o600)
    }
  }

  @Test(
    "calls that are not admitted fail, and callers who may do nothing have few connections, each of them and all together",
    arguments: [VarlinkServer.Limits(strangers: 2), VarlinkServer.Limits(strangersPerUser: 2)]) @EventLoopActor
  func admission(_ limits: VarlinkServer.Limits) async throws {
    let service = try TestService(limits: limits)
    let callers = Callers()
    service.server.isStranger = { peer, groups in
      #expect(peer.user == getuid() && !groups().contains(.max))
      return callers.areStrangers
    }
    service.server.admission = { call throws(VarlinkError) in
      if call.method == "test.service.Echo" { throw VarlinkError("org.varlink.service.PermissionDenied") }
      return .granted
    }
    let first = try service.connect()
    let refusal = #"{"error":"org.varlink.service.PermissionDenied"}"#
    #expect(try await first.call("test.service.Echo", #"{"text":"x"}"#) == refusal)
    #expect(try await first.call("test.service.Fail", #"{"kind":"known"}"#) != refusal)
    let second = try service.connect()
    #expect(try await second.call("test.service.Echo", #"{"text":"x"}"#) == refusal)
    let third = try service.connect()
    try await third.peer.waitForEnd()
    // Others are not concerned, and places come back.
    callers.areStrangers = false
    #expect(try await service.connect().call("test.service.Echo", #"{"text":"x"}"#) == refusal)
    callers.areStrangers = true
    first.peer.close()
    while service.server.connectionCount > 2 { try await quiet() }
    #expect(try await service.connect().call("test.service.Echo", #"{"text":"x"}"#) == refusal)
  }

  @Test("while it does not accept, connections and calls wait, and go on afterwards; whose caller has gone is not begun") @EventLoopActor
  func notAccepting() async throws {
    let service = try TestService()
    let begun = Callers()
    service.server.admission = { _ throws(VarlinkError) in
      begun.admitted += 1
      return .granted
    }
    let (waiting, gone) = (try service.connect(), try service.connect())
    for connection in [waiting, gone] { #expect(try await connection.call("test.service.Echo", #"{"text":"x"}"#).contains("x")) }
    let answered = waiting.peer.received.count
    service.server.isAccepting = false
    for connection in [waiting, gone] { try await connection.send("test.service.Echo", #"{"text":"y"}"#) }
    let late = try service.connect()
    try await late.send("test.service.Echo", #"{"text":"z"}"#)
    while begun.admitted < 4 { try await quiet() }
    gone.peer.close()
    while service.server.connectionCount > 1 { try await quiet() }
    #expect(waiting.peer.received.count == answered && late.peer.received.isEmpty)
    service.server.isAccepting = true
    #expect(try await waiting.receive() == #"{"parameters":{"text":"y"}}"#)
    #expect(try await late.receive() == #"{"parameters":{"text":"z"}}"#)
    #expect(begun.admitted == 5)
  }

  @Test("a call that is asked about waits for the answer, and others do not") @EventLoopActor
  func askedAbout() async throws {
    let service = try TestService()
    let isAdmitted = Promise<Bool>()
    service.server.admission = { call throws(VarlinkError) in
      guard call.method == "test.service.Echo" else { return .granted }
      return .asked { () throws(VarlinkError) in
        if await !isAdmitted.value { throw VarlinkError("org.varlink.service.PermissionDenied") }
      }
    }
    let (asked, other, gone) = (try service.connect(), try service.connect(), try service.connect())
    try await asked.send("test.service.Echo", #"{"text":"x"}"#)
    try await gone.send("test.service.Echo", #"{"text":"x"}"#)
    #expect(try await other.call("test.service.Fail", #"{"kind":"varlink"}"#).contains("thrown"))
    #expect(asked.peer.received.isEmpty)
    gone.peer.close()
    while service.server.connectionCount > 2 { try await quiet() }
    isAdmitted.fulfil(true)
    #expect(try await asked.receive() == #"{"parameters":{"text":"x"}}"#)
    // What can only be a stream is told so behind that.
    service.server.admission = { _ throws(VarlinkError) in .asked { () throws(VarlinkError) in } }
    #expect(try await other.call("test.service.Count", #"{"to":1}"#) == #"{"error":"org.varlink.service.ExpectedMore"}"#)
    service.server.admission = { _ throws(VarlinkError) in
      .asked { () throws(VarlinkError) in throw VarlinkError("org.varlink.service.PermissionDenied") }
    }
    #expect(try await other.call("test.service.Echo", #"{"text":"x"}"#) == #"{"error":"org.varlink.service.PermissionDenied"}"#)
  }

  @Test("shutting down ends every connection") @EventLoopActor
  func shutDown() async throws {
    let service = try TestService()
    let (idle, busy) = (try service.connect(), try service.connect())
    _ = try await idle.call("test.service.Echo", #"{"text":""}"#)
    try await busy.send("test.service.Wait")
    try await service.wait("the call") { $0.waiting.count == 1 }
    service.server.shutDown()
    try await idle.peer.waitForEnd()
    try await busy.peer.waitForEnd()
    #expect(service.gone == 1)
    #expect(service.server.connectionCount == 0)
    service.release.fulfil(1)
    try await quiet()
    #expect(try await refuses(service))
  }

  @Test("when listening stops, connections go on") @EventLoopActor
  func stopListening() async throws {
    let service = try TestService()
    let client = try service.connect()
    _ = try await client.call("test.service.Echo", #"{"text":""}"#)
    service.server.stopListening()
    #expect(try await refuses(service))
    #expect(try isJSON(try await client.call("test.service.Echo", #"{"text":"x"}"#), #"{"parameters":{"text":"x"}}"#))
  }

  @Test("a server that is let go of ends its connections") @EventLoopActor
  func letGo() async throws {
    var service: TestService? = try TestService()
    let client = try #require(try service?.connect())
    _ = try await client.call("test.service.Echo", #"{"text":""}"#)
    weak let server = service?.server
    service = nil
    try await client.peer.waitForEnd()
    #expect(server == nil)
  }

  @Test("connections beyond the limit are refused, and room that is freed is used again") @EventLoopActor
  func limit() async throws {
    let service = try TestService(limits: .init(connections: 2, connectionsPerUser: 2))
    let clients = [try service.connect(), try service.connect()]
    for client in clients { _ = try await client.call("test.service.Echo", #"{"text":""}"#) }
    let refused = try service.connect()
    try await refused.peer.waitForEnd()
    clients[0].peer.close()
    try await quiet()
    _ = try await service.connect().call("test.service.Echo", #"{"text":""}"#)
    _ = try await clients[1].call("test.service.Echo", #"{"text":""}"#)
  }

  @Test("a message of many megabytes is read to its end, in whatever pieces it comes", arguments: [1 << 12, 1 << 16, 1 << 20])
  @EventLoopActor
  func longMessage(piece: Int) async throws {
    let service = try TestService()
    let client = try service.connect()
    let text = String(repeating: "x", count: 8 << 20)
    var rest = Array((#"{"method":"test.service.Fail","parameters":{"kind":""# + text + #""}}"# + "\0").utf8)[...]
    while !rest.isEmpty {
      try await client.peer.write(rest.prefix(piece))
      rest = rest.dropFirst(piece)
    }
    #expect(try await client.receive().contains("test.service.Sorry"))
  }

  @Test(
    "what is not Varlink ends its connection and nothing else",
    arguments: ["nonsense\0", "{}\0", "[]\0", "{\"method\":1}\0", "\0", "{\"method\":\"a.b.C\",\"parameters\":[]}\0", "\u{FF}\0"])
  @EventLoopActor
  func garbage(text: String) async throws {
    let service = try TestService()
    let other = try service.connect()
    let client = try service.connect()
    try await client.peer.write(text)
    try await client.peer.wait("an error or the end") { $0.hasEnded || $0.received.contains(0) }
    _ = try await other.call("test.service.Echo", #"{"text":""}"#)
  }

  /// Whether nobody listens any more. A child that another test is just starting has the socket, too, for a moment.
  @EventLoopActor
  private func refuses(_ service: TestService) async throws -> Bool {
    for _ in 0..<1000 {
      do { _ = try service.connect() } catch { return true }
      try await quiet()
    }
    return false
  }
}

/// What those who connect from now on are, and how many calls were admitted.
@EventLoopActor
private final class Callers {
  var areStrangers = true
  var admitted = 0
}
