public import SystemdEvent

/// The monitor's side of one session on a shared monitor: its socket, and what is on its way there.
///
/// It is read only when all that was read before has gone to QEMU and nothing waits to be taken, so it holds one ``chunk`` of input
/// and the replies to that.
@EventLoopActor
public final class SharedEndpoint {
  /// How much is read at once, and may wait in the socket, in bytes.
  static let chunk: CInt = 4096

  /// Called when there may be something for QEMU.
  var onRequests: (() -> Void)?
  /// Called when the session is over.
  var onEnd: (() -> Void)?
  /// It is in the queue for QEMU.
  var hasTurn = false
  /// QEMU has a long command of its.
  var hasLongCommand = false

  private var descriptor: OwnedDescriptor?
  private let socket: Endpoint
  private var source: EventSource?
  private var state: SharedSession
  private var downstream = Backlog()
  /// The client has passed a descriptor, and may do so again.
  private var hasPassedDescriptors = false
  /// Nothing more comes from QEMU.
  private var isEnding = false

  private static let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(chunk), alignment: 16)
  private static let byte = UnsafeMutableRawBufferPointer(rebasing: scratch[..<1])

  init(_ socket: consuming OwnedDescriptor, _ state: SharedSession) throws(SystemdError) {
    self.state = state
    self.socket = Endpoint(socket: socket)
    descriptor = consume socket
    source = try EventSource.descriptor(self.socket.raw, .readable) { [weak self] in self?.ready($0) }
  }

  // The source goes before the descriptor that it watches.
  isolated deinit { source.cancel() }

  /// Greets.
  func start() { flush() }

  /// Drops what QEMU has not got yet, for a client that has gone.
  public func abandon() {
    state.abandon()
    onRequests?()
  }

  /// Lets go of a session that has come to rest: what comes from now on is nobody's.
  public func finish() { close() }

  /// The next command for QEMU, if one may go now.
  func next() -> SharedSession.Outgoing? {
    guard descriptor != nil, !isEnding, downstream.isEmpty else { return nil }
    let command = state.next()
    flush()
    return command
  }

  /// - Parameter reply: nil if there will be none.
  func replied(_ reply: [UInt8]?) {
    guard descriptor != nil, !isEnding else { return }
    guard let reply else { return end() }
    state.replied(reply)
    flush()
  }

  func event(_ text: [UInt8]) {
    guard descriptor != nil, !isEnding else { return }
    state.event(text)
    flush()
  }

  /// Ends the session once what has come for it is out.
  func end() {
    guard !isEnding else { return }
    isEnding = true
    if downstream.isEmpty { close() } else { updateInterest() }
  }

  private func close() {
    guard descriptor != nil else { return }
    source.cancel()
    descriptor = nil
    downstream.drop()
    onEnd?()
  }

  private func ready(_ ready: Readiness) {
    if ready.contains(.writable) { moved(downstream.flush(to: socket)) }
    if descriptor != nil, !ready.isDisjoint(with: [.readable, .hangUp, .error]) { read() }
  }

  private func read() {
    guard read(into: hasPassedDescriptors ? Self.byte : Self.scratch) else { return }
    // A longer read does not tell which of its bytes descriptors came with, and they must reach QEMU with the command that they are for.
    // Not more than a chunk: the loop has others to serve.
    for _ in 0..<Self.chunk where hasPassedDescriptors && !state.hasRequests && !isEnding { guard read(into: Self.byte) else { return } }
    updateInterest()
    onRequests?()
  }

  /// - Returns: whether there was something to read.
  private func read(into buffer: UnsafeMutableRawBufferPointer) -> Bool {
    var passed = PassedDescriptors()
    switch receive(socket.raw, isSocket: true, into: buffer, descriptors: &passed) {
    case .bytes(0), .failed: close()
    case .wouldBlock: break
    case .bytes where isEnding: break
    case .bytes(let count):
      var carried: CarriedDescriptors?
      if !passed.isEmpty {
        hasPassedDescriptors = true
        carried = CarriedDescriptors(owning: passed.take())
      }
      state.receive(UnsafeRawBufferPointer(rebasing: buffer[..<count]), descriptors: carried)
      return true
    }
    return false
  }

  private func flush() {
    if !state.output.isEmpty {
      let progress = state.output.withUnsafeBytes { downstream.write($0, to: socket) }
      state.output.removeAll(keepingCapacity: state.output.count <= 4096)
      moved(progress)
    } else {
      updateInterest()
    }
  }

  private func moved(_ progress: Backlog.Progress) {
    switch progress {
    case .broken: return close()
    case .empty where isEnding: return close()
    case .empty: onRequests?()
    case .blocked: break
    }
    updateInterest()
  }

  private func updateInterest() {
    guard descriptor != nil else { return }
    var interest: Readiness = state.hasRequests || !downstream.isEmpty ? [] : .readable
    if !downstream.isEmpty { interest.insert(.writable) }
    source?.interest = interest
  }
}
