import Glibc
public import SystemdEvent

/// Carries one session: bytes and descriptors between a client and a monitor, until one of them goes.
///
/// QEMU never sees the client's descriptors, and never sees an end that comes in the middle of a command: when the client
/// has gone, or has nothing more to say, the relay first *drains* the monitor (``DrainFilter``). Only after that may the
/// monitor be removed, which is for the relay's owner to do:
///
///     let relay = try Relay(client: …, monitor: …)
///     if await relay.drained.value == .drained { /* remove the monitor */ }
///     await relay.deliver()
///     await relay.linger()
///
/// What the client wrote before it closed or half-closed is executed; what it is still owed is delivered as long as it reads.
/// In each direction at most one chunk is held, and a side is not read while the other does not take what is there.
@EventLoopActor
public final class Relay {
  /// How the monitor's part of the session ended.
  public enum End: Sendable, Equatable {
    /// No command is under way on the monitor: it can be removed.
    case drained
    /// QEMU closed the monitor; there is nothing to remove.
    case monitorGone
  }

  /// How long a client may take to close its side after it got our end of file.
  static let lingerLimit = Duration.seconds(10)

  /// Fulfilled when the monitor has been drained or has gone.
  public let drained = Promise<End>()
  private let delivered = Promise<Void>()
  private let clientClosed = Promise<Void>()

  private var inputDescriptor: OwnedDescriptor?
  private var outputDescriptor: OwnedDescriptor?
  private let monitorDescriptor: OwnedDescriptor
  private let input: Endpoint?
  private let output: Endpoint?
  private let monitor: Endpoint
  private var inputSource: EventSource?
  private var outputSource: EventSource?
  private var monitorSource: EventSource?

  /// Towards the monitor, and towards the client.
  private var upstream = Backlog()
  private var downstream = Backlog()
  /// The client will send no more.
  private var inputHasEnded = false
  /// The client takes no more: replies are read and dropped.
  private var clientIsGone = false
  private var drain: DrainFilter?
  private var monitorIsMidLine = false

  /// The one buffer that every session reads into; what cannot be written at once moves to a backlog.
  private static let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)
  /// QEMU takes its input byte by byte, so there is no hurry that way, and much fairness in small chunks.
  private static let upstreamChunk = 16384

  /// Starts relaying.
  ///
  /// - Parameters:
  ///   - client: the client's input and output, descriptors that the relay owns from now on (two, even if they are of one
  ///     socket); nil for a client that has gone already.
  ///   - monitor: our end of the monitor's socket.
  public init(client: (input: CInt, output: CInt)?, monitor: consuming OwnedDescriptor) throws(SystemdError) {
    self.monitor = Endpoint(monitor)
    monitorDescriptor = monitor
    if let client {
      let inputDescriptor = OwnedDescriptor(owning: client.input)
      let outputDescriptor = OwnedDescriptor(owning: client.output)
      input = Endpoint(inputDescriptor)
      output = Endpoint(outputDescriptor)
      self.inputDescriptor = consume inputDescriptor
      self.outputDescriptor = consume outputDescriptor
    } else {
      input = nil
      output = nil
    }
    monitorSource = try EventSource.descriptor(self.monitor.raw, .readable) { [weak self] in self?.monitorReady($0) }
    if let client {
      inputSource = try EventSource.descriptor(client.input, .readable) { [weak self] _ in self?.readClient() }
      outputSource = try EventSource.descriptor(client.output, []) { [weak self] in self?.outputReady($0) }
      outputSource?.isEnabled = false
    } else {
      clientIsGone = true
      clientClosed.fulfil()
      endInput()
    }
  }

  // The sources go before the descriptors that they watch.
  isolated deinit {
    inputSource = nil
    outputSource = nil
    monitorSource = nil
  }

  /// Ends the session from our side: what the client has sent is still executed, nothing more is read.
  public func stop() {
    if !inputHasEnded { endInput() }
  }

  /// Waits until the client has what it is owed, and gives it the end of file.
  public func deliver() async {
    await delivered.value
    outputSource = nil
    if let output, output.isSocket { shutdown(output.raw, CInt(SHUT_WR)) }
    // A pipe's end of file is its close.
    outputDescriptor = nil
  }

  /// Waits a little for the client's own end of file, then closes: a client that is in the middle of writing is not killed
  /// by that.
  public func linger() async {
    _ = await clientClosed.value(within: Self.lingerLimit)
    inputSource = nil
    inputDescriptor = nil
  }

  // MARK: client to monitor

  private func readClient() {
    guard let input else { return }
    var descriptors = PassedDescriptors()
    let buffer = UnsafeMutableRawBufferPointer(rebasing: Self.scratch[..<Self.upstreamChunk])
    let transfer = receive(input.raw, isSocket: input.isSocket, into: buffer, descriptors: &descriptors)
    if inputHasEnded {
      // Only the client's own end is of interest now; bytes that came too late are dropped.
      switch transfer {
      case .bytes(1...), .wouldBlock: return
      default: return clientHasClosed()
      }
    }
    switch transfer {
    case .bytes(0):
      clientHasClosed()
      endInput()
    case .bytes(let count):
      let progress = upstream.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]), descriptors: descriptors, to: monitor)
      upstreamMoved(progress)
    case .wouldBlock: break
    case .failed:
      clientIsGone = true
      downstream.drop()
      clientHasClosed()
      endInput()
    }
  }

  private func upstreamMoved(_ progress: Backlog.Progress) {
    switch progress {
    case .empty:
      if !inputHasEnded { inputSource?.isEnabled = true } else if drain == nil { beginDrain() }
    case .blocked:
      // Disabled, not merely uninterested: a hang-up is reported regardless, again and again.
      if !inputHasEnded { inputSource?.isEnabled = false }
    case .broken:
      // What QEMU said before it went is still to be read; the end of that is the end of the session.
      upstream.drop()
      inputHasEnded = true
      inputSource?.isEnabled = true
    }
    updateMonitorInterest()
  }

  private func clientHasClosed() {
    inputSource = nil
    clientClosed.fulfil()
  }

  private func endInput() {
    inputHasEnded = true
    inputSource?.isEnabled = true
    if !clientIsGone {
      // From now on only the output can tell that the client is gone for good.
      outputSource?.isEnabled = true
    }
    if upstream.isEmpty, drain == nil { beginDrain() }
  }

  private func beginDrain() {
    guard drained.result == nil else { return }
    let nonce = String(UInt64.random(in: 1 << 60 ... UInt64.max), radix: 16)
    drain = DrainFilter(nonce: nonce, midLine: monitorIsMidLine)
    let progress = DrainFilter.request(nonce: nonce).withUnsafeBytes { upstream.write($0, to: monitor) }
    upstreamMoved(progress)
  }

  // MARK: monitor to client

  private func monitorReady(_ ready: Readiness) {
    if ready.contains(.writable) { upstreamMoved(upstream.flush(to: monitor)) }
    if drained.result == nil, downstream.isEmpty || clientIsGone, !ready.isDisjoint(with: [.readable, .hangUp, .error]) {
      readMonitor()
    }
  }

  private func readMonitor() {
    var descriptors = PassedDescriptors()
    switch receive(monitor.raw, isSocket: true, into: Self.scratch, descriptors: &descriptors) {
    case .bytes(0), .failed: end(.monitorGone)
    case .wouldBlock: break
    case .bytes(let count):
      let chunk = UnsafeRawBufferPointer(rebasing: Self.scratch[..<count])
      if drain == nil {
        monitorIsMidLine = chunk[count - 1] != UInt8(ascii: "\n")
        deliver(chunk, descriptors)
      } else if let owed = drain?.filter(chunk) {
        owed.withUnsafeBytes { deliver($0, PassedDescriptors()) }
        if drain?.isDone == true { end(.drained) }
      }
    }
  }

  private func deliver(_ chunk: UnsafeRawBufferPointer, _ descriptors: consuming PassedDescriptors) {
    guard !clientIsGone, !chunk.isEmpty, let output else { return }
    downstreamMoved(downstream.write(chunk, descriptors: descriptors, to: output))
  }

  private func outputReady(_ ready: Readiness) {
    if !ready.isDisjoint(with: [.hangUp, .error]) { return clientTakesNoMore() }
    guard let output else { return }
    downstreamMoved(downstream.flush(to: output))
  }

  private func downstreamMoved(_ progress: Backlog.Progress) {
    switch progress {
    case .empty:
      outputSource?.interest = []
      outputSource?.isEnabled = inputHasEnded
      if drained.result != nil { delivered.fulfil() }
    case .blocked:
      outputSource?.interest = .writable
      outputSource?.isEnabled = true
    case .broken:
      clientTakesNoMore()
    }
    updateMonitorInterest()
  }

  private func clientTakesNoMore() {
    clientIsGone = true
    downstream.drop()
    outputSource = nil
    if drained.result != nil { delivered.fulfil() }
    updateMonitorInterest()
    if inputHasEnded {
      clientHasClosed()
    } else if input?.isSocket == false {
      // A broken pipe says nothing of the other pipe, which may stay open and silent for ever.
      endInput()
    }
    // A socket's own end of file follows, behind what the client had sent.
  }

  // MARK: the monitor's end

  private func updateMonitorInterest() {
    guard let monitorSource else { return }
    let reads = downstream.isEmpty
    var interest: Readiness = reads ? .readable : []
    if !upstream.isEmpty { interest.insert(.writable) }
    monitorSource.interest = interest
    // A monitor that hung up would be reported without end while its last words wait for the client.
    monitorSource.isEnabled = reads || !upstream.isEmpty
  }

  private func end(_ end: End) {
    guard drained.result == nil else { return }
    monitorSource = nil
    inputHasEnded = true
    inputSource?.isEnabled = true
    drained.fulfil(end)
    if downstream.isEmpty { delivered.fulfil() }
  }
}
