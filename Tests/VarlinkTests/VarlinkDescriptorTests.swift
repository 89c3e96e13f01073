import Glibc
import SystemdEvent
import TestSupport
import Testing

@Suite(.onEventLoop) struct VarlinkDescriptorTests {
  /// A pipe with `text` in it: the end to be read.
  private static func pipe(with text: String) -> OwnedDescriptor {
    var ends: [CInt] = [-1, -1]
    Glibc.pipe(&ends)
    _ = write(ends[1], text, text.utf8.count)
    close(ends[1])
    return OwnedDescriptor(owning: ends[0])
  }

  @EventLoopActor
  private static func send(_ client: TestSupport.VarlinkPeer, index: String, _ descriptors: [CInt]) async throws {
    let call = #"{"method":"test.service.Read","parameters":{"fileDescriptorIndex":\#(index)}}"# + "\0"
    try await client.peer.write(Array(call.utf8), descriptors: descriptors)
  }

  @Test("a descriptor comes with its call, also when the next call is there already") @EventLoopActor
  func passed() async throws {
    let service = try TestService()
    service.mayRead = Promise()
    let client = try service.connect()
    let one = Self.pipe(with: "one")
    let two = Self.pipe(with: "two")
    let three = Self.pipe(with: "three")
    try await Self.send(client, index: "1", [one.raw, two.raw])
    try await Self.send(client, index: "0", [three.raw])
    try await quiet()
    service.mayRead?.fulfil()
    #expect(try await client.receive() == #"{"parameters":{"text":"two"}}"#)
    #expect(try await client.receive() == #"{"parameters":{"text":"three"}}"#)
  }

  @Test("what is not taken is closed") @EventLoopActor
  func closed() async throws {
    let service = try TestService()
    let client = try service.connect()
    var ends: [CInt] = [-1, -1]
    Glibc.pipe(&ends)
    let reader = OwnedDescriptor(owning: ends[0])
    let taken = Self.pipe(with: "")
    try await Self.send(client, index: "0", [taken.raw, ends[1]])
    close(ends[1])
    _ = try await client.receive()
    try await Self.send(client, index: "7", [])
    _ = try await client.receive()
    let peer = try Peer(reader)
    try await peer.waitForEnd()
  }

  @Test("a descriptor that did not come is ENXIO, and a bad index an invalid parameter", arguments: ["0", "-1"])
  @EventLoopActor
  func missing(index: String) async throws {
    let service = try TestService()
    let client = try service.connect()
    try await Self.send(client, index: index, [])
    let reply = try await client.receive()
    if index == "0" {
      #expect(reply.contains("ENXIO") || reply.contains("No such device or address"), "\(reply)")
    } else {
      #expect(reply == #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"fileDescriptorIndex"}}"#)
    }
  }
}
