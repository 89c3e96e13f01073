import Glibc
public import SystemdEvent
public import SystemdJSON

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
/// What the client wrote before it half-closed is executed; what it is still owed is delivered as long as it reads. When it
/// closes for good, at most ``upstreamChunk`` more bytes are taken of what it wrote: enough for a last word, and not enough to
/// keep QEMU busy for nobody. Towards QEMU at most one chunk is held, and the client is not read while QEMU does not take it. Towards the client
/// ``Options/unreadLimit`` bytes are held, so that a client that does not read costs this process's memory, with a bound, and
/// not QEMU's, which has none.
@EventLoopActor
public final class Relay {
  /// What differs from session to session.
  public struct Options: Sendable {
    /// How many bytes of replies and events a client may leave unread. With one more the session ends.
    public var unreadLimit = 16 << 20
    /// Says why a command is refused, in words for the client; nil permits it. Without it everything is permitted, malformed
    /// input included, which is QEMU's to answer.
    public var refusal: (@EventLoopActor @Sendable (JSONVariant) -> String?)?
    /// Called with what the client writes, before it goes anywhere.
    public var onInput: (@EventLoopActor @Sendable (UnsafeRawBufferPointer) -> Void)?
    public init() {}
  }

  /// How the monitor's part of the session ended.
  public enum End: Sendable, Equatable {
    /// No command is under way on the monitor: it can be removed.
    case drained
    /// QEMU closed the monitor; there is nothing to remove.
    case monitorGone
    /// The session had no monitor; there is nothing to remove.
    case parked
  }

  /// Where a session is in its life.
  public enum State: String, Sendable {
    /// The client may send commands.
    case active
    /// The client sends no more, and QEMU has not yet answered all that it sent.
    case draining
    /// The same for longer than ``stuckAfter``: a command does not come back. The session waits for it, as long as it takes:
    /// removing a monitor under a command can kill QEMU.
    case stuck
    /// The client may send commands, and the session gets a monitor for the next.
    case parked
  }

  /// What went through.
  public struct Statistics: Sendable {
    public var bytesFromClient = 0
    public var bytesToClient = 0
    public var commands = 0
    public var replies = 0
    /// When anything moved last.
    public var lastActivity = ContinuousClock.now
    /// When the client sent something last, or got a reply.
    public var lastCommand = ContinuousClock.now
  }

  /// How long a client may take to close its side after it got our end of file.
  static let lingerLimit = Duration.seconds(10)
  /// How long a client that is owed something may take nothing of it.
  static let patience = Duration.seconds(60)
  /// When a drain counts as stuck.
  public static let stuckAfter = Duration.seconds(5)
  /// How many names of passed descriptors are remembered. Further ones stay in QEMU.
  private static let mostNames = 1024

  /// Fulfilled when the monitor has been drained or has gone.
  public let drained = Promise<End>()
  /// Called when ``state`` has changed.
  public var onStateChange: (() -> Void)?
  public internal(set) var state = State.active {
    didSet { if state != oldValue { onStateChange?() } }
  }
  public internal(set) var statistics = Statistics()
  /// Why the session was ended from this side, if it was.
  public internal(set) var reasonForEnd: String?
  /// Called when a parked session has something for QEMU: it is to be given a monitor.
  public var onWake: (() -> Void)?

  private let options: Options
  private let delivered = Promise<Void>()
  private let clientClosed = Promise<Void>()

  var inputDescriptor: OwnedDescriptor?
  var outputDescriptor: OwnedDescriptor?
  var monitorDescriptor: OwnedDescriptor?
  let input: Endpoint?
  let output: Endpoint?
  /// Nil while the session is parked.
  var monitor: Endpoint?
  var inputSource: EventSource?
  private var outputSource: EventSource?
  var monitorSource: EventSource?
  private var stuckTimer: EventSource?

  /// Towards the monitor, and towards the client.
  var upstream = Backlog()
  var downstream = Backlog()
  var commands = CommandStream()
  var replies = ReplyScanner()
  var refusals: RefusalFilter?
  /// Came with bytes that are held back still. QEMU keeps the newest ones only, and so does this.
  var heldDescriptors = PassedDescriptors()
  /// Names that the client gave to descriptors in QEMU, as JSON strings.
  var descriptorNames: Set<String> = []
  var hasPassedDescriptors = false
  /// The client may have asked for out-of-band execution, which lives in its monitor.
  var mayBeOutOfBand = false
  /// The client will send no more, or is not listened to any more.
  var inputHasEnded = false
  /// The client takes no more: replies are read and dropped.
  public private(set) var clientIsGone = false
  var drain: DrainFilter?
  /// What parking has come to, while it is under way.
  var parking: Parking?
  /// Keeps events from the client that it had from elsewhere.
  var skipping: EventSkipper?

  /// The one buffer that every session reads into; what cannot be written at once moves to a backlog.
  private static let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)
  /// QEMU takes its input byte by byte, so there is no hurry that way, and much fairness in small chunks.
  private static let upstreamChunk = 16384
  /// What is about to be forwarded, collected here to be written at once.
  private static var outgoing: [UInt8] = []

  /// Starts relaying.
  ///
  /// - Parameters:
  ///   - client: the client's input and output, descriptors that the relay owns from now on (two, even if they are of one
  ///     socket); nil for a client that has gone already.
  ///   - monitor: our end of the monitor's socket.
  public init(
    client: (input: CInt, output: CInt)?, monitor: consuming OwnedDescriptor, options: Options = Options()
  ) throws(SystemdError) {
    self.options = options
    let endpoint = Endpoint(socket: monitor)
    self.monitor = endpoint
    monitorDescriptor = consume monitor
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
    if options.refusal != nil { refusals = RefusalFilter(nonce: Self.makeNonce()) }
    monitorSource = try EventSource.descriptor(endpoint.raw, .readable) { [weak self] in self?.monitorReady($0) }
    if let client {
      inputSource = try EventSource.descriptor(client.input, .readable) { [weak self] in self?.inputReady($0) }
    } else {
      clientIsGone = true
      clientClosed.fulfil()
      endInput()
    }
  }

  /// Goes on with a session that the run of the daemon before had.
  ///
  /// - Parameters:
  ///   - carried: from ``carried(_:)``.
  ///   - options: as they were there.
  /// - Throws: ``Handover/Failure`` for what that did not write, and when the monitor was lost on the way.
  public init(carried: JSONVariant, _ handover: Handover, options: Options) throws {
    self.options = options
    guard let commands = carried["commands"], let replies = carried["replies"], let upstream = carried["upstream"],
      let downstream = carried["downstream"], let statistics = carried["statistics"], let isOver = carried["over"]?.boolean,
      let names = carried["names"]?.elements, let hasEnded = carried["inputEnded"]?.boolean
    else { throw Handover.Failure("a session that cannot be read") }
    self.commands = try CommandStream(carried: commands)
    self.replies = try ReplyScanner(carried: replies)
    self.upstream = try Backlog(carried: upstream, handover)
    self.downstream = try Backlog(carried: downstream, handover)
    self.statistics = try Statistics(carried: statistics)
    if let refusals = carried["refusals"] { self.refusals = try RefusalFilter(carried: refusals) }
    if let drain = carried["drain"] { self.drain = try DrainFilter(carried: drain) }
    descriptorNames = Set(names.compactMap(\.string))
    hasPassedDescriptors = carried["passes"]?.boolean == true
    mayBeOutOfBand = carried["outOfBand"]?.boolean == true
    reasonForEnd = carried["reason"]?.string
    for number in carried["held"]?.elements ?? [] {
      if let descriptor = handover.take(number)?.take() { heldDescriptors.append([descriptor]) }
    }
    let input = handover.take(carried["input"])
    let output = if carried["oneSocket"]?.boolean == true { try input?.duplicate() } else { handover.take(carried["output"]) }
    self.input = Endpoint.of(input)
    self.output = Endpoint.of(output)
    inputDescriptor = consume input
    outputDescriptor = consume output
    if let number = carried["monitor"] {
      guard let monitor = handover.take(number) else { throw Handover.Failure("a session without its monitor") }
      self.monitor = Endpoint(socket: monitor)
      monitorDescriptor = consume monitor
    } else if !isOver {
      state = .parked
    }
    try goOn(isOver: isOver, inputHasEnded: hasEnded)
  }

  private func goOn(isOver: Bool, inputHasEnded hasEnded: Bool) throws(SystemdError) {
    if let monitor {
      monitorSource = try EventSource.descriptor(monitor.raw, .readable) { [weak self] in self?.monitorReady($0) }
      updateMonitorInterest()
    }
    if let input {
      inputSource = try EventSource.descriptor(input.raw, .readable) { [weak self] in self?.inputReady($0) }
      inputSource?.isEnabled = upstream.isEmpty || hasEnded
    } else {
      clientIsGone = clientIsGone || output == nil
      clientClosed.fulfil()
    }
    if !downstream.isEmpty { watchOutput(.writable) }
    if isOver {
      inputHasEnded = true
      state = .draining
      end(.parked)
    } else if hasEnded || input == nil {
      endInput()
    }
  }

  // The sources go before the descriptors that they watch.
  isolated deinit {
    inputSource.cancel()
    outputSource.cancel()
    monitorSource.cancel()
  }

  /// How many commands have no reply yet; nil when that is not known, because the client sent what is not plain JSON.
  public var commandsInFlight: Int? { commands.isRaw ? nil : max(0, statistics.commands - statistics.replies) }

  /// Whether the client has negotiated capabilities.
  public var isNegotiated: Bool { replies.isNegotiated }

  /// Ends the session from our side: what the client has sent is still executed and answered, nothing more is read. A client
  /// that sends no more anyway is not waited for any longer.
  public func stop(because reason: String) {
    reasonForEnd = reasonForEnd ?? reason
    if inputHasEnded { hangUp() } else { endInput() }
  }

  /// Waits until the client has what it is owed, and gives it the end of file. A client that takes nothing for
  /// ``patience`` is not waited for.
  public func deliver() async {
    while delivered.result == nil {
      let left = downstream.count
      if await delivered.value(within: Self.patience) == nil, downstream.count == left {
        reasonForEnd = reasonForEnd ?? "the client does not read what it is owed"
        hangUp()
      }
    }
    outputSource.cancel()
    if let output, outputDescriptor != nil, output.isSocket { shutdown(output.raw, CInt(SHUT_WR)) }
    // A pipe's end of file is its close.
    outputDescriptor = nil
  }

  /// Waits a little for the client's own end of file, then closes: a client that is in the middle of writing is not killed
  /// by that.
  public func linger() async {
    _ = await clientClosed.value(within: Self.lingerLimit)
    inputSource.cancel()
    inputDescriptor = nil
  }

  // MARK: client to monitor

  private func inputReady(_ ready: Readiness) {
    // On a socket that is both directions' end. On a pipe it is the end of what comes, and there may be much of that.
    guard ready.contains(.hangUp), input?.isSocket == true, !inputHasEnded else { return readClient() }
    clientIsGone = true
    downstream.drop()
    readClient()
    clientHasClosed()
    if !inputHasEnded { endInput() }
  }

  private func readClient() {
    guard let input, inputDescriptor != nil else { return }
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
      take(UnsafeRawBufferPointer(rebasing: buffer[..<count]), &descriptors)
      if hasPassedDescriptors { readInStep(input) }
    case .wouldBlock: break
    case .failed:
      clientIsGone = true
      downstream.drop()
      clientHasClosed()
      endInput()
    }
  }

  /// Reads on byte by byte, for a client that passes descriptors: a longer read does not tell which of its bytes they came
  /// with, and they must reach QEMU with the command that they are for. QEMU reads no faster.
  private func readInStep(_ input: Endpoint) {
    let byte = UnsafeMutableRawBufferPointer(rebasing: Self.scratch[..<1])
    for _ in 0..<Self.upstreamChunk where upstream.isEmpty && !inputHasEnded {
      var descriptors = PassedDescriptors()
      // The end, and errors, are met again by the next read.
      guard receive(input.raw, isSocket: input.isSocket, into: byte, descriptors: &descriptors) == .bytes(1) else { return }
      take(UnsafeRawBufferPointer(byte), &descriptors)
    }
  }

  private func take(_ chunk: UnsafeRawBufferPointer, _ descriptors: inout PassedDescriptors) {
    options.onInput?(chunk)
    statistics.bytesFromClient += chunk.count
    statistics.lastActivity = .now
    statistics.lastCommand = statistics.lastActivity
    if !descriptors.isEmpty {
      hasPassedDescriptors = true
      heldDescriptors.close()
      heldDescriptors.append(descriptors.take())
    }
    forward(chunk)
  }

  private func forward(_ chunk: UnsafeRawBufferPointer) {
    Self.outgoing.removeAll(keepingCapacity: true)
    let wasStreaming = commands.isStreaming
    commands.consume(chunk) { piece in
      switch piece {
      case .command(let command): forward(command: command)
      case .raw(let bytes): if refusals == nil { Self.outgoing += bytes }
      }
    }
    // One that is too long to be held has begun; a chunk is too short for more than one. Nobody has looked at what it asks for.
    if commands.isStreaming, !wasStreaming {
      statistics.commands += 1
      if !replies.isNegotiated { mayBeOutOfBand = true }
    }
    let isUnreadable = commands.isRaw || commands.isStreaming
    if isUnreadable, options.refusal != nil {
      // What cannot be read cannot be judged.
      refuse("This session takes plain JSON commands of at most \(CommandStream.longestHeld) bytes, and ends here", id: nil)
    }
    if !Self.outgoing.isEmpty {
      upstreamMoved(
        Self.outgoing.withUnsafeBytes { bytes in
          guard let monitor else { return upstream.hold(bytes, descriptors: &heldDescriptors) }
          return upstream.write(bytes, descriptors: &heldDescriptors, to: monitor)
        })
      if monitor == nil { onWake?() }
    }
    if isUnreadable, options.refusal != nil { stop(because: "input that is not plain JSON on a restricted session") }
  }

  private func forward(command: ArraySlice<UInt8>) {
    statistics.commands += 1
    if !replies.isNegotiated, !mayBeOutOfBand { mayBeOutOfBand = Self.mentionsOutOfBand(command) }
    guard hasPassedDescriptors || options.refusal != nil else {
      Self.outgoing += command
      return
    }
    let parsed = (command + [0]).withUnsafeBufferPointer { try? JSONVariant(parsingTerminated: $0) }
    if hasPassedDescriptors, parsed?["execute"]?.string == "getfd", let name = parsed?["arguments"]?["fdname"],
      name.string != nil, descriptorNames.count < Self.mostNames
    {
      descriptorNames.insert(name.text)
    }
    if let refusal = options.refusal {
      guard let parsed else { return refuse("JSON that cannot be read here", id: nil) }
      if let reason = refusal(parsed) { return refuse(reason, id: parsed["id"]) }
    }
    Self.outgoing += command
  }

  /// Has the client answered with an error of QMP's own form, in its place among the replies.
  private func refuse(_ reason: String, id: JSONVariant?) {
    let error = JSONVariant.object(["class": .string("GenericError"), "desc": .string(reason)])
    let reply = JSONVariant.object(["id": id, "error": error]).text + "\r\n"
    if let placeholder = refusals?.placeholder(for: Array(reply.utf8)) { Self.outgoing += placeholder }
  }

  func upstreamMoved(_ progress: Backlog.Progress) {
    switch progress {
    case .empty:
      if parking?.isDraining == true { break }
      if !inputHasEnded { inputSource?.isEnabled = true } else if drain == nil { beginDrain() }
    case .blocked:
      // Disabled, not merely uninterested: a hang-up is reported regardless, again and again.
      if !inputHasEnded { inputSource?.isEnabled = false }
    case .broken:
      // Either QEMU has gone, and what it said before is still to be read, up to its end; or a command could not be passed on,
      // and the drain brings QEMU to rest.
      upstream.drop()
      if !inputHasEnded { endInput() }
    }
    updateMonitorInterest()
  }

  private func clientHasClosed() {
    inputSource.cancel()
    clientClosed.fulfil()
    releaseClient()
  }

  /// A client that is gone for good holds no descriptors of ours, however long its session takes to come to rest.
  private func releaseClient() {
    guard clientIsGone, clientClosed.result != nil else { return }
    outputSource.cancel()
    inputDescriptor = nil
    outputDescriptor = nil
  }

  func endInput() {
    inputHasEnded = true
    if drained.result == nil {
      state = .draining
      watchDrain()
    }
    inputSource?.isEnabled = true
    heldDescriptors.close()
    // From now on only the output can tell that the client is gone for good.
    watchOutput(downstream.isEmpty ? [] : .writable)
    if upstream.isEmpty, drain == nil, parking?.isDraining != true { beginDrain() }
  }

  /// Tells when the drain takes long, while there is a monitor to be drained.
  private func watchDrain() {
    stuckTimer = try? EventSource.timer(after: Self.stuckAfter) { [weak self] in
      guard let self else { return }
      if self.hasMonitor { self.state = .stuck } else { self.watchDrain() }
    }
  }

  private func beginDrain() {
    guard drained.result == nil else { return }
    // Nothing of the session is in QEMU.
    guard let monitor else { return end(.parked) }
    forgetEvents()
    let nonce = Self.makeNonce()
    drain = DrainFilter(nonce: nonce, after: replies)
    let request = DrainFilter.request(nonce: nonce, closing: descriptorNames)
    upstreamMoved(request.withUnsafeBytes { upstream.write($0, to: monitor) })
  }

  static func makeNonce() -> String { String(UInt64.random(in: 1 << 60...UInt64.max), radix: 16) }

  // MARK: monitor to client

  func monitorReady(_ ready: Readiness) {
    if ready.contains(.writable), let monitor { upstreamMoved(upstream.flush(to: monitor)) }
    if drained.result == nil, !ready.isDisjoint(with: [.readable, .hangUp, .error]) { readMonitor() }
  }

  private func readMonitor() {
    guard let monitor else { return }
    var descriptors = PassedDescriptors()
    switch receive(monitor.raw, isSocket: true, into: Self.scratch, descriptors: &descriptors) {
    case .bytes(0), .failed: if parking?.isDraining == true { monitorClosedForParking() } else { end(.monitorGone) }
    case .wouldBlock: break
    case .bytes(let count):
      statistics.lastActivity = .now
      let chunk = UnsafeRawBufferPointer(rebasing: Self.scratch[..<count])
      let began = replies.count(in: chunk)
      statistics.replies += began
      if began > 0 { statistics.lastCommand = statistics.lastActivity }
      if parking != nil { return readMonitorForParking(chunk, &descriptors) }
      if refusals == nil, drain == nil, skipping == nil { return deliver(chunk, &descriptors) }
      if skipping != nil { return readMonitorSkipping(chunk, &descriptors) }
      pass(chunk, &descriptors)
      if drain?.isDone == true { end(.drained) }
    }
  }

  /// Gives the client what it is to have of what the monitor sent.
  func pass(_ chunk: UnsafeRawBufferPointer, _ descriptors: inout PassedDescriptors) {
    var owed = refusals?.filter(chunk) ?? Array(chunk)
    if drain != nil, let filtered = owed.withUnsafeBytes({ drain?.filter($0) }) { owed = filtered }
    owed.withUnsafeBytes { deliver($0, &descriptors) }
  }

  func deliver(_ chunk: UnsafeRawBufferPointer, _ descriptors: inout PassedDescriptors) {
    guard !clientIsGone, !chunk.isEmpty, let output else { return }
    statistics.bytesToClient += chunk.count
    downstreamMoved(downstream.write(chunk, descriptors: &descriptors, to: output))
    guard downstream.count > options.unreadLimit else { return }
    reasonForEnd = "the client left more than \(options.unreadLimit) bytes unread"
    // What it has not even got an answer to yet; but never the drain's own commands.
    if drain == nil { upstream.drop() }
    hangUp()
    if !inputHasEnded { endInput() }
  }

  /// Ends the client's connection without its consent.
  private func hangUp() {
    if let output, outputDescriptor != nil, output.isSocket { shutdown(output.raw, CInt(SHUT_RDWR)) }
    clientTakesNoMore()
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
      watchOutput(.writable)
    case .broken:
      clientTakesNoMore()
    }
  }

  /// Watches the client's output from now on, which a session that goes well needs only at its end.
  private func watchOutput(_ interest: Readiness) {
    guard let output, outputDescriptor != nil, !clientIsGone else { return }
    if let outputSource {
      outputSource.interest = interest
      outputSource.isEnabled = true
      return
    }
    outputSource = try? .descriptor(output.raw, interest) { [weak self] in self?.outputReady($0) }
    // Out of memory, most likely: a client that cannot be waited for.
    if outputSource == nil { hangUp() }
  }

  private func clientTakesNoMore() {
    clientIsGone = true
    downstream.drop()
    outputSource.cancel()
    if drained.result != nil { delivered.fulfil() }
    if inputHasEnded {
      clientHasClosed()
    } else if input?.isSocket == false {
      // A broken pipe says nothing of the other pipe, which may stay open and silent for ever.
      clientHasClosed()
      endInput()
    }
    // A socket's own end of file follows, behind what the client had sent.
  }

  // MARK: the monitor's end

  private func updateMonitorInterest() {
    monitorSource?.interest = upstream.isEmpty ? .readable : [.readable, .writable]
  }

  func end(_ end: End) {
    guard drained.result == nil else { return }
    parking?.abandon()
    monitorSource.cancel()
    stuckTimer = nil
    inputHasEnded = true
    inputSource?.isEnabled = true
    drained.fulfil(end)
    if downstream.isEmpty { delivered.fulfil() }
  }
}
