import Glibc
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import Relay

/// A relay between a client and a monitor, both of which the test plays.
@EventLoopActor
final class Session {
  /// The client's end; nil once it was let go.
  var client: Peer?
  let monitor: Peer
  private(set) var relay: Relay
  private let options: Relay.Options

  /// A client on one socket, as a Varlink upgrade gives it: two descriptors of it.
  convenience init(_ options: Relay.Options = Relay.Options()) throws {
    let (ours, theirs) = try socketPair()
    let client = try Peer(OwnedDescriptor(owning: ours))
    try self.init(client: client, input: theirs, output: fcntl(theirs, F_DUPFD_CLOEXEC, 3), options)
  }

  /// A client behind any two descriptors.
  init(client: Peer?, input: CInt, output: CInt, _ options: Relay.Options = Relay.Options()) throws {
    let (ours, theirs) = try socketPair()
    self.client = client
    self.options = options
    monitor = try Peer(OwnedDescriptor(owning: theirs))
    relay = try Relay(client: (input, output), monitor: OwnedDescriptor(owning: ours), options: options)
  }

  /// Another run of the daemon goes on with it: all that is known of it is a text, and all that it has are copies of descriptors.
  func handOver() async throws {
    // What is on its way to the relay gets there, or is for the next one to read.
    try await quiet()
    let handover = Handover()
    guard let carried = try relay.carried(handover) else { throw NeverCame(description: "a session that can be handed over") }
    let descriptors = handover.descriptors.map { fcntl($0, F_DUPFD_CLOEXEC, 3) }
    let taken = Handover(try JSONVariant(parsing: carried.text), descriptors: descriptors)
    relay = try Relay(carried: taken.value, taken, options: options)
    #expect(taken.descriptors.allSatisfy { $0 < 0 }, "each descriptor has its place")
  }

  /// The client, for as long as it is there.
  var connected: Peer {
    get throws {
      guard let client else { throw NeverCame(description: "the client") }
      return client
    }
  }

  /// Ends the session as its owner does, and hands back how the monitor's part ended.
  @discardableResult
  func end() async throws -> Relay.End {
    let end = try await relay.drained.soon("the end of the drain")
    let finished = Promise<Void>()
    startTask { [relay] in
      await relay.deliver()
      await relay.linger()
      finished.fulfil()
    }
    try await finished.soon("the end of the session")
    return end
  }
}

extension Peer {

  /// Waits for a drain, and gives its nonce.
  func drainNonce() async throws -> String {
    var nonce: Substring = ""
    try await wait("a drain's request") { peer in
      // Its request is the last that comes, and the only thing with that byte.
      guard let start = peer.received.lastIndex(of: 0xFF) else { return false }
      let request = String(decoding: peer.received[(start + 1)...], as: UTF8.self)
      guard request.hasSuffix("\"}"), let id = request.dropLast(2).split(separator: #"{"execute":"","id":""#).last else { return false }
      nonce = id
      return true
    }
    return String(nonce)
  }

  /// Answers a drain as QEMU does.
  func answerDrain() async throws {
    try await write(Lines.lexerError + Lines.answer(try await drainNonce()))
  }

  /// What came before a drain began.
  var beforeDrain: [UInt8] { Array(received.prefix { $0 != 0xFF }) }
}

/// Lines as QEMU writes them.
enum Lines {
  /// What a byte that cannot be JSON gets.
  static let lexerError = #"{"error": {"class": "GenericError", "desc": "JSON parse error, stray '\xFF'"}}"# + "\r\n"

  /// What the drain's command gets.
  static func answer(_ nonce: String) -> String {
    #"{"id": "\#(nonce)", "error": {"class": "CommandNotFound", "desc": "The command  has not been found"}}"# + "\r\n"
  }
}

/// Bytes without a drain's first among them, no two stretches of which are alike.
func sample(_ count: Int) -> [UInt8] {
  var state: UInt32 = 1
  return (0..<count).map { _ in
    state = state &* 1_664_525 &+ 1_013_904_223
    return UInt8(state >> 24) % 0xFF
  }
}
