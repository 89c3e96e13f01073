import Glibc
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing
import Varlink

@Suite(.onEventLoop) struct VarlinkUpgradeTests {
  static let request = #"{"method":"test.service.Raw","upgrade":true}"# + "\0"
  static let reply = #"{"parameters":{"hello":"raw"}}"#

  @Test("behind the reply the connection is raw, both ways") @EventLoopActor
  func upgrade() async throws {
    let service = try TestService()
    let client = try service.connect()
    try await client.peer.write(Self.request)
    #expect(try isJSON(try await client.receive(), Self.reply))
    try await service.wait("the upgrade") { $0.rawPeers.count == 1 }
    let raw = service.rawPeers[0]
    try await raw.write([0, 255, 1])
    try await client.peer.wait("raw bytes") { $0.received.suffix(3) == [0, 255, 1] }
    try await client.peer.write([2, 0, 254])
    try await raw.wait("raw bytes") { $0.received == [2, 0, 254] }
    #expect(service.server.connectionCount == 0)
    client.peer.close()
    try await raw.waitForEnd()
  }

  @Test("what is written right behind the request arrives raw and in order", arguments: [1, 3000, 150_000]) @EventLoopActor
  func pipelined(size: Int) async throws {
    let service = try TestService()
    let client = try service.connect()
    let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    try await client.peer.write(Array(Self.request.utf8) + bytes)
    try await client.peer.write("and on")
    #expect(try isJSON(try await client.receive(), Self.reply))
    try await service.wait("the upgrade") { $0.rawPeers.count == 1 }
    try await service.rawPeers[0].wait("all bytes") { $0.received.count >= size + 6 }
    #expect(service.rawPeers[0].received == bytes + Array("and on".utf8))
  }

  @Test("a call before it on the same connection is answered first") @EventLoopActor
  func afterACall() async throws {
    let service = try TestService()
    let client = try service.connect()
    try await client.peer.write(#"{"method":"test.service.Echo","parameters":{"text":"x"}}"# + "\0" + Self.request + "raw")
    #expect(try isJSON(try await client.receive(), #"{"parameters":{"text":"x"}}"#))
    #expect(try isJSON(try await client.receive(), Self.reply))
    try await service.wait("the upgrade") { $0.rawPeers.count == 1 }
    try await service.rawPeers[0].wait(for: "raw")
  }

  @Test("a client that half-closes right behind its bytes has its upgrade, its bytes and the replies") @EventLoopActor
  func halfClosed() async throws {
    let service = try TestService()
    let client = try service.connect()
    try await client.peer.write(Self.request + "raw")
    client.peer.endWriting()
    #expect(try isJSON(try await client.receive(), Self.reply))
    try await service.wait("the upgrade") { $0.rawPeers.count == 1 }
    try await service.rawPeers[0].waitForEnd()
    #expect(service.rawPeers[0].text == "raw")
    try await service.rawPeers[0].write("still here")
    try await client.peer.wait(for: "still here")
  }

  @Test("a caller that vanishes while the handler prepares the upgrade gets none") @EventLoopActor
  func vanishes() async throws {
    let service = try TestService()
    let may = Promise<Void>()
    service.mayUpgrade = may
    let client = try service.connect()
    try await client.peer.write(Self.request)
    try await service.wait("the call") { $0.rawCalls == 1 }
    client.peer.close()
    try await quiet()
    may.fulfil()
    try await service.wait("the outcome") { $0.upgrades.count == 1 }
    #expect(service.upgrades == [false])
    #expect(service.server.connectionCount == 0)
  }

  @Test("a caller that vanishes in the moment of the upgrade leaves nothing pending", arguments: [true, false]) @EventLoopActor
  func vanishesAtOnce(withBytes: Bool) async throws {
    let service = try TestService()
    for _ in 0..<20 {
      let client = try service.connect()
      try await client.peer.write(Self.request + (withBytes ? "raw" : ""))
      client.peer.close()
    }
    try await service.wait("every outcome") { $0.upgrades.count == $0.rawCalls }
    try await quiet()
    for peer in service.rawPeers { try await peer.waitForEnd() }
    #expect(service.server.connectionCount == 0)
  }

  @Test("several connections upgrade at once") @EventLoopActor
  func several() async throws {
    let service = try TestService()
    let may = Promise<Void>()
    service.mayUpgrade = may
    let clients = try (0..<10).map { _ in try service.connect() }
    for (index, client) in clients.enumerated() { try await client.peer.write(Self.request + "<\(index)>") }
    try await service.wait("all calls") { $0.rawCalls == 10 }
    may.fulfil()
    try await service.wait("all upgrades") { $0.rawPeers.count == 10 }
    for peer in service.rawPeers {
      try await peer.wait(for: ">")
      try await peer.write(peer.text)
    }
    for (index, client) in clients.enumerated() {
      #expect(try isJSON(try await client.receive(), Self.reply))
      try await client.peer.wait("its own bytes") { $0.text.hasSuffix("<\(index)>") }
    }
  }
}
