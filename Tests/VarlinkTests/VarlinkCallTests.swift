import Glibc
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing
import Varlink

@Suite(.onEventLoop) struct VarlinkCallTests {
  @Test("a call is answered") @EventLoopActor
  func plain() async throws {
    let service = try TestService()
    let reply = try await service.connect().call("test.service.Echo", #"{"text":"hé \"there\""}"#)
    #expect(try isJSON(reply, #"{"parameters":{"text":"hé \"there\""}}"#))
  }

  @Test("calls that are written together are answered in order") @EventLoopActor
  func pipelined() async throws {
    let service = try TestService()
    let client = try service.connect()
    let calls = ["one", "two", "three"].map { #"{"method":"test.service.Echo","parameters":{"text":"\#($0)"}}"# + "\0" }
    try await client.peer.write(calls.joined())
    for word in ["one", "two", "three"] {
      #expect(try isJSON(try await client.receive(), #"{"parameters":{"text":"\#(word)"}}"#))
    }
  }

  @Test("a call that comes in pieces is one call") @EventLoopActor
  func pieces() async throws {
    let service = try TestService()
    let client = try service.connect()
    for byte in Array(#"{"method":"test.service.Echo","parameters":{"text":"bit by bit"}}"#.utf8) + [0] {
      try await client.peer.write([byte])
      try await quiet()
    }
    #expect(try isJSON(try await client.receive(), #"{"parameters":{"text":"bit by bit"}}"#))
  }

  @Test("a caller that waits does not hold up another") @EventLoopActor
  func twoCallers() async throws {
    let service = try TestService()
    let patient = try service.connect()
    try await patient.send("test.service.Wait")
    try await service.wait("the call") { $0.waiting.count == 1 }
    _ = try await service.connect().call("test.service.Echo", #"{"text":"x"}"#)
    service.release.fulfil(7)
    #expect(try isJSON(try await patient.receive(), #"{"parameters":{"count":7}}"#))
  }

  @Test("the caller is known") @EventLoopActor
  func peer() async throws {
    let service = try TestService()
    let client = try service.connect()
    try await client.send("test.service.Wait")
    try await service.wait("the call") { $0.waiting.count == 1 }
    let peer = service.waiting[0].peer
    #expect(peer.user == getuid() && peer.group == getgid() && peer.process == getpid())
    #expect(service.waiting[0].method == "test.service.Wait")
    service.release.fulfil(0)
    _ = try await client.receive()
  }

  struct Refusal: CustomTestStringConvertible {
    let testDescription: String
    let call: String
    let error: String
    var parameters: String?

    init(_ what: String, _ call: String, gives error: String, _ parameters: String? = nil) {
      testDescription = what
      self.call = call
      self.error = error
      self.parameters = parameters
    }
  }

  static let refusals = [
    Refusal(
      "an error thrown as it is replied", #""test.service.Fail","parameters":{"kind":"varlink"}"#, gives: "test.service.Sorry",
      #"{"why":"thrown"}"#),
    Refusal(
      "an error that has to be mapped", #""test.service.Fail","parameters":{"kind":"odd"}"#, gives: "test.service.Sorry",
      #"{"why":"mapped Odd"}"#),
    Refusal(
      "an unacceptable parameter", #""test.service.Fail","parameters":{"kind":"parameter"}"#,
      gives: "org.varlink.service.InvalidParameter", #"{"parameter":"kind"}"#),
    Refusal("no such method", #""test.service.Nothing""#, gives: "org.varlink.service.MethodNotFound"),
    Refusal("no such interface", #""test.other.Nothing""#, gives: "org.varlink.service.MethodNotFound"),
    Refusal(
      "a parameter of the wrong type", #""test.service.Echo","parameters":{"text":1}"#,
      gives: "org.varlink.service.InvalidParameter", #"{"parameter":"text"}"#),
    Refusal(
      "a parameter too many", #""test.service.Echo","parameters":{"text":"","more":1}"#,
      gives: "org.varlink.service.InvalidParameter"),
    Refusal("a parameter missing", #""test.service.Echo","parameters":{}"#, gives: "org.varlink.service.InvalidParameter"),
    Refusal("a stream, without more", #""test.service.Count","parameters":{"to":3}"#, gives: "org.varlink.service.ExpectedMore"),
    Refusal("a stream, with upgrade", #""test.service.Count","parameters":{"to":3},"upgrade":true"#, gives: ""),
    Refusal("an upgrade, without the flag", #""test.service.Raw""#, gives: "org.varlink.service.ExpectedUpgrade"),
    Refusal("an upgrade, with more", #""test.service.Raw","more":true"#, gives: ""),
  ]

  @Test("a call that cannot be is answered with an error", arguments: refusals) @EventLoopActor
  func refused(_ test: Refusal) async throws {
    let service = try TestService()
    let client = try service.connect()
    try await client.peer.write("{\"method\":\(test.call)}\0")
    let reply = try JSONVariant(parsing: try await client.receive())
    let error = try #require(reply["error"]?.string)
    if !test.error.isEmpty { #expect(error == test.error) }
    if let parameters = test.parameters { #expect(try reply["parameters"] == JSONVariant(parsing: parameters)) }
  }

  @Test("calls that want no reply get none, and the connection goes on", arguments: ["Echo", "Fail", "Count", "Raw", "Nothing"])
  @EventLoopActor
  func oneway(method: String) async throws {
    let service = try TestService()
    let client = try service.connect()
    let parameters = ["Echo": #"{"text":"x"}"#, "Fail": #"{"kind":"varlink"}"#, "Count": #"{"to":2}"#][method] ?? "{}"
    try await client.send("test.service.\(method)", parameters, flags: #","oneway":true"#)
    let reply = try await client.call("test.service.Echo", #"{"text":"next"}"#)
    #expect(try isJSON(reply, #"{"parameters":{"text":"next"}}"#))
  }

  @Test("a stream ends with a message that has no more behind it") @EventLoopActor
  func stream() async throws {
    let service = try TestService()
    let client = try service.connect()
    try await client.send("test.service.Count", #"{"to":3}"#, flags: #","more":true"#)
    #expect(try isJSON(try await client.receive(), #"{"parameters":{"number":1},"continues":true}"#))
    #expect(try isJSON(try await client.receive(), #"{"parameters":{"number":2},"continues":true}"#))
    #expect(try isJSON(try await client.receive(), #"{"parameters":{"number":3}}"#))
    #expect(try isJSON(try await client.call("test.service.Echo", #"{"text":"x"}"#), #"{"parameters":{"text":"x"}}"#))
  }

  @Test("a caller that goes is noticed while its call is pending, and the reply does no harm") @EventLoopActor
  func callerGoes() async throws {
    let service = try TestService()
    let client = try service.connect()
    try await client.send("test.service.Wait")
    try await service.wait("the call") { $0.waiting.count == 1 }
    #expect(!service.waiting[0].callerIsGone)
    client.peer.close()
    try await service.wait("the caller's end") { $0.gone == 1 }
    #expect(service.waiting[0].callerIsGone)
    var calledAtOnce = false
    service.waiting[0].whenCallerGoes { calledAtOnce = true }
    #expect(calledAtOnce)
    #expect(throws: SystemdError.self) { try service.waiting[0].notify(.object(["count": .integer(1)])) }
    service.release.fulfil(1)
    try await quiet()
    #expect(service.server.connectionCount == 0)
    #expect(try isJSON(try await service.connect().call("test.service.Echo", #"{"text":"x"}"#), #"{"parameters":{"text":"x"}}"#))
  }

  @Test("a handler can hang up instead of answering") @EventLoopActor
  func hangUp() async throws {
    let service = try TestService()
    let client = try service.connect()
    try await client.send("test.service.Fail", #"{"kind":"hang-up"}"#)
    try await client.peer.waitForEnd()
    #expect(client.peer.received == [])
  }
}
