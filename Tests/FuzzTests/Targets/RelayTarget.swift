import SystemdEvent
import SystemdJSON
import TestSupport

@testable import Relay

/// A whole relay between a client and a monitor that both do what the input says: it comes to its end once both have gone.
@EventLoopActor
enum RelayTarget {
  static func run(_ input: [UInt8]) async throws {
    var script = ByteReader(input)
    var options = Relay.Options()
    let choice = script.byte()
    if choice & 1 != 0 { options.refusal = { $0["execute"]?.string == "stop" ? "no" : nil } }
    options.unreadLimit = choice & 2 != 0 ? 64 : 1 << 20
    let (clientEnd, theirs) = try socketPair()
    let client = try Peer(OwnedDescriptor(owning: clientEnd))
    let (monitorEnd, ours) = try socketPair()
    let monitor = try Peer(OwnedDescriptor(owning: monitorEnd))
    let output = try OwnedDescriptor(owning: theirs).duplicateBoth()
    let relay = try Relay(client: output, monitor: OwnedDescriptor(owning: ours), options: options)
    while !script.isAtEnd {
      let operation = script.byte()
      switch operation % 8 {
      case 0, 1: try? await client.write(script.bytes())
      case 2, 3: try? await monitor.write(script.bytes())
      case 4: client.endWriting()
      case 5: relay.stop(because: "the script says so")
      case 6: client.reads.toggle()
      default: try await quiet()
      }
    }
    client.close()
    try await quiet()
    // A monitor that answers the drain, or one that goes.
    if choice & 4 != 0 {
      if relay.drained.result == nil { try? await monitor.answerDrain() }
    }
    monitor.close()
    guard await relay.drained.value(within: patience) != nil else { throw Violation(description: "the relay does not end") }
    await relay.deliver()
    await relay.linger()
  }
}

extension OwnedDescriptor {
  /// Its number and that of a copy, whose owner is the caller.
  fileprivate consuming func duplicateBoth() throws -> (input: CInt, output: CInt) {
    let copy = try duplicate()
    return (take(), copy.take())
  }
}

extension Peer {
  /// Answers a drain as QEMU does, if one has come.
  fileprivate func answerDrain() async throws {
    guard let start = received.lastIndex(of: 0xFF) else { return }
    let request = String(decoding: received[(start + 1)...], as: UTF8.self)
    guard let nonce = request.dropLast(2).split(separator: #"{"execute":"","id":""#).last else { return }
    try await write(#"{"error": {"class": "GenericError", "desc": "stray"}}"# + "\r\n")
    try await write(#"{"id": "\#(nonce)", "error": {"class": "CommandNotFound", "desc": "none"}}"# + "\r\n")
  }
}
