import Glibc
public import SystemdEvent

/// The far end of a stream in a test: what it reads is collected, and can be waited for.
@EventLoopActor
public final class Peer {
  public struct TimedOut: Error, CustomStringConvertible {
    public let description: String
  }

  /// All that came so far.
  public private(set) var received: [UInt8] = []
  /// The descriptors that came with it.
  public private(set) var descriptors = PassedDescriptors()
  /// The other side has ended its direction, or broken the connection.
  public private(set) var hasEnded = false
  /// Whether what comes is read at all; turned off, the peer is a slow one.
  public var reads = true {
    didSet { source?.isEnabled = reads }
  }

  private var descriptor: OwnedDescriptor?
  private let isSocket: Bool
  private var source: EventSource?
  /// Looked at after each read, until they say that they are done.
  private var waiters: [() -> Bool] = []
  /// A bound for tests that would hang, far above what a loaded machine needs.
  private static let patience = Duration.seconds(60)

  public init(_ descriptor: consuming OwnedDescriptor) throws {
    let raw = descriptor.raw
    isSocket = descriptor.isSocket
    self.descriptor = consume descriptor
    source = try EventSource.descriptor(raw, .readable) { [weak self] _ in self?.read() }
  }

  public var text: String { String(decoding: received, as: UTF8.self) }

  /// Writes all of it, waiting for room when there is none.
  public func write(_ bytes: some Collection<UInt8>, descriptors: [CInt] = []) async throws {
    var rest = Array(bytes)[...]
    var descriptors = descriptors
    while !rest.isEmpty {
      guard let raw = descriptor?.raw else { throw TimedOut(description: "the peer was closed") }
      switch rest.withUnsafeBytes({ send(raw, isSocket: isSocket, $0, descriptors: descriptors) }) {
      case .bytes(let count):
        rest = rest.dropFirst(count)
        descriptors = []
      case .wouldBlock:
        try await roomToWrite(raw)
      case .failed(let errno): throw SystemdError("send", errno)
      }
    }
  }

  public func write(_ text: String, descriptors: [CInt] = []) async throws {
    try await write(Array(text.utf8), descriptors: descriptors)
  }

  /// Writes a few bytes, for which there must be room; for where nothing can be waited for.
  ///
  /// - Returns: whether all of it went.
  public func writeNow(_ text: String) -> Bool {
    guard let raw = descriptor?.raw else { return false }
    let bytes = Array(text.utf8)
    if case .bytes(bytes.count) = bytes.withUnsafeBytes({ send(raw, isSocket: isSocket, $0) }) { return true }
    return false
  }

  /// Waits until `condition` holds of what came.
  public func wait(_ what: String, until condition: @escaping (Peer) -> Bool) async throws {
    let met = Promise<Void>()
    if condition(self) { return }
    waiters.append { [weak self] in
      guard let self, condition(self) else { return false }
      met.fulfil()
      return true
    }
    guard await met.value(within: Self.patience) != nil else {
      throw TimedOut(description: "waited for \(what), got \(text.suffix(500))")
    }
  }

  /// Waits for a text to come.
  public func wait(for expected: String) async throws {
    try await wait("'\(expected)'") { $0.text.contains(expected) }
  }

  /// Drops what came so far.
  public func forget() { received.removeAll(keepingCapacity: true) }

  /// Waits for the other side's end.
  public func waitForEnd() async throws { try await wait("the end") { $0.hasEnded } }

  /// Hands over the descriptors that came, for the caller to close.
  public func takeDescriptors() -> [CInt] { descriptors.take() }

  /// Ends our direction only.
  public func endWriting() {
    if let raw = descriptor?.raw { shutdown(raw, CInt(SHUT_WR)) }
  }

  /// Closes, at once. A write under way fails.
  public func close() {
    source.cancel()
    descriptor = nil
    writability.cancel()
    writabilityDescriptor = nil
    room?.fulfil()
  }

  /// epoll takes a descriptor once; a second source needs a second number.
  private var writabilityDescriptor: OwnedDescriptor?
  private var writability: EventSource?
  private var room: Promise<Void>?

  private func roomToWrite(_ raw: CInt) async throws {
    if let room { return await room.value }
    let room = Promise<Void>()
    self.room = room
    let copy = dup(raw)
    guard copy >= 0 else { throw SystemdError.last("dup") }
    writabilityDescriptor = OwnedDescriptor(owning: copy)
    writability = try EventSource.descriptor(copy, .writable) { _ in room.fulfil() }
    await room.value
    self.room = nil
    writability.cancel()
    writabilityDescriptor = nil
  }

  isolated deinit {
    source.cancel()
    writability.cancel()
  }

  private func read() {
    guard let raw = descriptor?.raw else { return }
    let transfer = withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 8) { buffer in
      let transfer = receive(raw, isSocket: isSocket, into: buffer, descriptors: &descriptors)
      if case .bytes(let count) = transfer { received.append(contentsOf: buffer[..<count]) }
      return transfer
    }
    switch transfer {
    case .bytes(1...), .wouldBlock: break
    default:
      hasEnded = true
      source = nil
    }
    waiters.removeAll { $0() }
  }
}
