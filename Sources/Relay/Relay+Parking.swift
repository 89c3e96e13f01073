public import SystemdEvent

// A session without a monitor. Its owner removes the monitor and brings another, and knows which events are whose:
//
//     relay.watchEvents()                            // from here on they are kept
//     …a fence on the feed's monitor…
//     guard await relay.beginParking() else { … }    // drained
//     …remove the monitor…
//     await relay.monitorClosed()
//     let (events, drained) = relay.watchedEvents    // what the client had, to compare with the feed
//     relay.park(delivering: …)                      // what it lacks
//     …relay.deliver(event:) for each event of the feed, until relay.onWake…
//     relay.wake(with: …)
extension Relay {
  /// Parking under way.
  @EventLoopActor
  struct Parking {
    var splitter = EventSplitter()
    var events: [[UInt8]] = []
    /// How many of the events came before the drain was answered; nil before it is.
    var drainedEvents: Int?
    var isDraining = false
    let quiet = Promise<Bool>()
    let closed = Promise<Void>()

    /// The session has ended otherwise.
    func abandon() {
      quiet.fulfil(false)
      closed.fulfil()
    }
  }

  /// How many events may come while a session is being parked.
  private static let mostEvents = 4096

  /// Whether the session has a monitor.
  public var hasMonitor: Bool { monitor != nil }

  /// Whether a parked session has something for QEMU, also if it is its last word.
  public var waitsForMonitor: Bool { monitor == nil && drained.result == nil && !upstream.isEmpty }

  /// Whether the session could do without its monitor: nothing of it lives in there. Beside commands and what is not plain JSON
  /// (only QEMU knows where it ends) that is out-of-band execution, and passed descriptors. The beginning of a command is held
  /// here, not in QEMU.
  ///
  /// - Parameter byForce: whether commands may be in flight, whose replies are waited for then.
  public func canPark(byForce: Bool = false) -> Bool {
    guard state == .active, monitor != nil, parking?.isDraining != true, skipping == nil, !inputHasEnded, !hasPassedDescriptors,
      !mayBeOutOfBand
    else {
      return false
    }
    guard !commands.isRaw, !commands.isStreaming, !replies.isMidMessage, statistics.bytesToClient > 0 else { return false }
    return byForce || (upstream.isEmpty && statistics.commands == statistics.replies)
  }

  /// A command that comes before the negotiation and might ask for out-of-band execution; rather one too many.
  static func mentionsOutOfBand(_ command: ArraySlice<UInt8>) -> Bool {
    command.contains(UInt8(ascii: "\\")) || Array(command).end(of: Array("oob".utf8)) != nil
  }

  /// Keeps the events that come from now on, until ``park(delivering:)`` or ``forgetEvents()``.
  public func watchEvents() { parking = Parking() }

  /// Has nothing come of parking.
  public func forgetEvents() { parking = nil }

  /// Whether the events are kept that come.
  public var watchesEvents: Bool { parking != nil }

  /// Stops listening to the client, and drains the monitor.
  ///
  /// - Parameter isWritten: called when the drain is written.
  /// - Returns: false if the session has ended meanwhile.
  public func beginParking(_ isWritten: () -> Void) async -> Bool {
    guard let quiet = parking?.quiet, let monitor else { return false }
    parking?.isDraining = true
    inputSource?.isEnabled = false
    let nonce = Self.makeNonce()
    drain = DrainFilter(nonce: nonce, after: replies)
    let request = DrainFilter.request(nonce: nonce)
    isWritten()
    upstreamMoved(request.withUnsafeBytes { upstream.write($0, to: monitor) })
    return await quiet.value
  }

  /// Waits until QEMU has closed its end, or the session has ended otherwise.
  public func monitorClosed() async { await parking?.closed.value }

  /// The events that the monitor gave since ``watchEvents()``, without line ends, and how many of them before the drain was answered.
  public var watchedEvents: (events: [[UInt8]], drained: Int) { (parking?.events ?? [], parking?.drainedEvents ?? 0) }

  /// What a monitor sends while the session is being parked. It goes to the client as ever, but by whole messages when the drain is
  /// over: the end of the last may never come.
  func readMonitorForParking(_ chunk: UnsafeRawBufferPointer, _ descriptors: inout PassedDescriptors) {
    guard let isDraining = parking?.isDraining else { return }
    if parking?.drainedEvents != nil {
      watch(chunk).withUnsafeBytes { deliver($0, &descriptors) }
      return
    }
    if !isDraining {
      _ = watch(chunk)
      return pass(chunk, &descriptors)
    }
    pass(chunk, &descriptors)
    guard drain?.isDone == true, let rest = drain?.rest else {
      _ = watch(chunk)
      return
    }
    // The drain's own two replies are nobody's.
    statistics.replies -= 2
    _ = watch(UnsafeRawBufferPointer(rebasing: chunk[..<(chunk.count - rest.count)]))
    let drained = parking?.events.count
    parking?.drainedEvents = drained
    rest.withUnsafeBytes { rest in watch(rest).withUnsafeBytes { deliver($0, &descriptors) } }
    parking?.quiet.fulfil(true)
  }

  /// Keeps the events, and gives them back with their line ends.
  private func watch(_ chunk: UnsafeRawBufferPointer) -> [UInt8] {
    var lines: [UInt8] = []
    var events: [[UInt8]] = []
    parking?.splitter.consume(chunk) { piece in
      guard case .event(let line) = piece else { return }
      events.append(line.withoutLineEnd)
      lines += line
    }
    parking?.events += events
    if let count = parking?.events.count, count > Self.mostEvents, parking?.isDraining == false { forgetEvents() }
    return lines
  }

  func monitorClosedForParking() {
    if parking?.drainedEvents == nil { return end(.monitorGone) }
    releaseMonitor()
    parking?.closed.fulfil()
  }

  private func releaseMonitor() {
    monitorSource.cancel()
    monitorSource = nil
    monitor = nil
    monitorDescriptor = nil
  }

  /// Goes on without a monitor.
  ///
  /// - Parameter events: those of the feed that the monitor did not give any more, without line ends.
  public func park(delivering events: [[UInt8]]) {
    guard drained.result == nil, monitor == nil else { return }
    parking = nil
    drain = nil
    // A monitor that was fenced has had a few bytes more, which is rare, and only shows in the place that an error message tells.
    commands.beginAnew(column: isNegotiated ? StandbyMonitor.negotiation.utf8.count : 0)
    replies.beginAnew()
    refusals?.beginAnew()
    upstream.drop()
    for event in events { deliver(event: event) }
    if inputHasEnded { return end(.parked) }
    state = .parked
    inputSource?.isEnabled = true
  }

  /// Gives a parked client an event.
  public func deliver(event: [UInt8]) {
    var none = PassedDescriptors()
    statistics.lastActivity = .now
    (event + Array("\r\n".utf8)).withUnsafeBytes { deliver($0, &none) }
  }

  /// Ends a session that has no monitor, and can have none.
  public func giveUp(because reason: String) {
    reasonForEnd = reasonForEnd ?? reason
    guard drained.result == nil else { return }
    if monitor != nil { releaseMonitor() }
    upstream.drop()
    state = .draining
    end(.parked)
  }

  /// Goes on with another monitor, which is as the last one was: its greeting has been read, and it has been negotiated if that was.
  ///
  /// - Parameters:
  ///   - events: events that were read from it already, and that the client has not had, without line ends.
  ///   - skipped: how many of its next events the client has had.
  public func wake(with monitor: consuming OwnedDescriptor, delivering events: [[UInt8]], skipping skipped: Int) throws(SystemdError) {
    let endpoint = Endpoint(socket: monitor)
    monitorSource = try EventSource.descriptor(endpoint.raw, .readable) { [weak self] in self?.monitorReady($0) }
    self.monitor = endpoint
    monitorDescriptor = consume monitor
    skipping = skipped > 0 ? EventSkipper(skipped) : nil
    if state == .parked { state = .active }
    for event in events { deliver(event: event) }
    upstreamMoved(upstream.flush(to: endpoint))
  }

  /// What a monitor sends that is behind what the client has had.
  func readMonitorSkipping(_ chunk: UnsafeRawBufferPointer, _ descriptors: inout PassedDescriptors) {
    let passed = skipping?.filter(chunk) ?? Array(chunk)
    if skipping?.isDone == true { skipping = nil }
    passed.withUnsafeBytes { pass($0, &descriptors) }
    if drain?.isDone == true { end(.drained) }
  }
}
