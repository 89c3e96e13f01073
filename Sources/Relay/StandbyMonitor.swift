public import SystemdEvent

/// A monitor that has no client yet: new, its greeting taken off, and negotiated if that is asked for.
///
/// It reads what QEMU sends, so that nothing stays in QEMU, and keeps the events until their owner knows that the feed has them too.
@EventLoopActor
public final class StandbyMonitor {
  /// What negotiates, in QEMU's shortest form.
  static let negotiation = #"{"execute":"qmp_capabilities"}"#
  /// How many events may be kept. With more the monitor is given up.
  private static let mostEvents = 4096

  /// Fulfilled when it can be had: the greeting has come and, if it negotiates, the capabilities were accepted; or with false when it
  /// cannot be had any more.
  public let ready = Promise<Bool>()
  /// The events that came, without line ends, the oldest first, behind those that were dropped.
  public private(set) var events: [[UInt8]] = []
  /// How many events were dropped.
  public private(set) var dropped = 0

  private var descriptor: OwnedDescriptor?
  private let endpoint: Endpoint
  private var source: EventSource?
  private var splitter = EventSplitter()
  private let negotiates: Bool
  private var fences: [(line: Int, passed: Promise<Bool>)] = []
  private var asked: Int

  private static let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 16384, alignment: 16)

  /// - Parameters:
  ///   - socket: our end of the monitor's socket.
  ///   - negotiates: whether to negotiate, without any capability. It is written at once: QEMU reads it when it is ready to.
  public init(_ socket: consuming OwnedDescriptor, negotiates: Bool) throws(SystemdError) {
    endpoint = Endpoint(socket: socket)
    descriptor = consume socket
    self.negotiates = negotiates
    // The greeting, and the reply to the negotiation.
    asked = negotiates ? 2 : 1
    source = try EventSource.descriptor(endpoint.raw, .readable) { [weak self] _ in self?.read() }
    if negotiates { write(Self.negotiation) }
  }

  // The source goes before the descriptor that it watches.
  isolated deinit { source.cancel() }

  /// Asks QEMU something on this monitor: when it is answered, what QEMU wrote before has been read.
  ///
  /// - Returns: what is fulfilled then; with false if the monitor is gone.
  public func fence() -> Promise<Bool> {
    let passed = Promise<Bool>()
    guard descriptor != nil, !isGone else {
      passed.fulfil(false)
      return passed
    }
    asked += 1
    fences.append((asked, passed))
    write(#"{"execute":""}"#)
    return passed
  }

  /// Forgets the oldest `count` events.
  public func dropEvents(_ count: Int) {
    events.removeFirst(min(count, events.count))
    dropped += count
  }

  /// Gives the monitor's socket away, with what came of a message that is not whole yet. Fences must have been passed.
  ///
  /// - Returns: nil if the monitor is gone.
  public func take() -> OwnedDescriptor? {
    guard ready.result == true, !isGone, !splitter.isMidLine, fences.isEmpty else { return nil }
    source.cancel()
    source = nil
    return descriptor.take()
  }

  /// Whether it is in the middle of a message, and so cannot be taken at this moment.
  public var isMidMessage: Bool { splitter.isMidLine }

  private func write(_ text: String) {
    // A few bytes into a socket of our own that is read: they fit.
    let bytes = Array(text.utf8)
    if bytes.withUnsafeBytes({ send(endpoint.raw, isSocket: true, $0) }) != .bytes(bytes.count) { giveUp() }
  }

  private func read() {
    var descriptors = PassedDescriptors()
    switch receive(endpoint.raw, isSocket: true, into: Self.scratch, descriptors: &descriptors) {
    case .bytes(0), .failed: giveUp()
    case .wouldBlock: break
    case .bytes(let count):
      var taken: [[UInt8]] = []
      splitter.consume(UnsafeRawBufferPointer(rebasing: Self.scratch[..<count])) { piece in
        if case .event(let line) = piece { taken.append(line.withoutLineEnd) }
      }
      events += taken
      if events.count > Self.mostEvents { return giveUp() }
      if splitter.otherLines >= (negotiates ? 2 : 1) { ready.fulfil(true) }
      while let first = fences.first, splitter.otherLines >= first.line {
        fences.removeFirst()
        first.passed.fulfil(true)
      }
    }
  }

  private func giveUp() {
    source.cancel()
    source = nil
    ready.fulfil(false)
    isGone = true
    let waiting = fences
    fences = []
    for fence in waiting { fence.passed.fulfil(false) }
    onGone?()
  }

  /// QEMU has closed it, or it said more than can be kept. It is still to be removed.
  public private(set) var isGone = false
  /// Called when it ``isGone``.
  public var onGone: (() -> Void)?
}
