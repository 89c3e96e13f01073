import SystemdEvent
import TestSupport
import Testing

@testable import QMP

@Suite(.onEventLoop) struct QMPNegotiationTests {
  @Test("the greeting is told once the server has agreed") @EventLoopActor
  func agreed() async throws {
    let conversation = try Conversation()
    let outcome = conversation.negotiate(within: patience)
    // The client does not wait for the greeting, which comes later.
    try await conversation.serverGets("qmp_capabilities")
    try await conversation.server.write(Conversation.greeting)
    try await quiet()
    #expect(outcome.result == nil)
    try await conversation.server.write(Conversation.done)
    #expect(try await outcome.soon().get() == Greeting(version: "11.1.2", capabilities: ["oob"]))
  }

  @Test("a server that refuses is told with its own words") @EventLoopActor
  func refused() async throws {
    let conversation = try Conversation()
    let outcome = conversation.negotiate()
    try await conversation.serverGets("qmp_capabilities")
    try await conversation.server.write(Conversation.greeting + Conversation.refusal)
    #expect(try await outcome.soon().error == .negotiation(errorClass: "GenericError", desc: "no"))
  }

  @Test("a greeting that does not come in time ends the connection") @EventLoopActor
  func noGreeting() async throws {
    let conversation = try Conversation()
    let outcome = conversation.negotiate(within: .milliseconds(10))
    guard case .greeting(let reason)? = try await outcome.soon().error else {
      Issue.record("\(String(describing: outcome.result))")
      return
    }
    #expect(reason.contains("nothing came within"))
    try await conversation.server.waitForEnd()
  }

  @Test("a server that goes ends the negotiation", arguments: ["", Conversation.greeting]) @EventLoopActor
  func goes(after text: String) async throws {
    let conversation = try Conversation()
    let outcome = conversation.negotiate(within: patience)
    if !text.isEmpty { try await conversation.server.write(text) }
    conversation.server.close()
    #expect(try await outcome.soon().error == .disconnected)
  }

  @Test("a greeting that is none ends the connection") @EventLoopActor
  func badGreeting() async throws {
    let conversation = try Conversation()
    let outcome = conversation.negotiate(within: patience)
    try await conversation.serverGets("qmp_capabilities")
    try await conversation.server.write(#"{"QMP": {}}"#)
    #expect(try await outcome.soon().error == .greeting("it has no version"))
  }
}
