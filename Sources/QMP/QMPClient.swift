import DequeModule
import Glibc
public import SystemdEvent
public import SystemdJSON
public import SystemPackage

/// One QMP connection, seen from the client's side.
///
/// Commands may be issued by any number of tasks at once; they go out in the order of the calls and carry no id, because
/// QEMU answers the in-band commands of one monitor in order and reads its input at some 5 µs a byte. Every call ends: with
/// the reply, with ``QMPError/timedOut`` after ``responseLimit``, with ``QMPError/overloaded`` or ``QMPError/notSent(_:)`` before
/// the server has anything of it, or with ``QMPError/disconnected`` when the connection does.
@EventLoopActor
public final class QMPClient {
  /// How many commands may wait for their replies. One more fails with ``QMPError/overloaded``.
  public static let maximumPending = 4096
  /// How many more there may be that are submitted as text.
  static let maximumForwarded = 64
  /// The longest message accepted from the server, in bytes; `query-qmp-schema`, the longest known, has a quarter of a million. The
  /// reply that is longer is lost, and no other.
  public static let maximumMessage = 32 << 20
  /// How deep a message may be nested whose contents are looked at. libsystemd makes no values deeper than 2048 levels, and what is
  /// passed on in a typed form may have twice as many as it came with.
  public nonisolated static let deepestMessage = 1000

  private let socket: OwnedDescriptor
  private var readiness: EventSource?
  private var splitter = MessageSplitter(limit: maximumMessage)
  private var pending = Deque<Slot>()
  private var outgoing = Deque<Outgoing>()
  private let greeted = Promise<Result<Greeting, QMPError>>()

  /// Called with each event, in its place between the replies.
  public var onEvent: ((QMPEvent) -> Void)?
  /// Whether events have their ``QMPEvent/text``.
  public var keepsEventText = false
  /// The greeting as it came, on one line and without its end; empty before it came.
  public private(set) var greetingText: [UInt8] = []
  /// How long a command may take. When the oldest has waited longer, it and all others fail with ``QMPError/timedOut``, and
  /// so does every further one, at once, until the server answers again: not those, whose replies may be lost, but a question
  /// with an id, behind which the order of commands and replies begins anew. Nil waits for ever.
  public var responseLimit: Duration? {
    didSet {
      watchdog = nil
      if responseLimit != nil, !pending.isEmpty || !isResponding { watch(for: .zero) }
    }
  }
  /// Whether the server answers within ``responseLimit``, as far as is known.
  public private(set) var isResponding = true {
    didSet { if isResponding != oldValue { onRespondingChange?() } }
  }
  /// Called when ``isResponding`` has changed.
  public var onRespondingChange: (() -> Void)?
  /// Runs while there are commands to watch; it is not set anew for each of them.
  private var watchdog: EventSource?
  /// When it is to run.
  private var watchdogDue = ContinuousClock.now
  /// The questions that ask whether the server is there again: their ids, and the numbers of the first slots behind them.
  private var probes: [(id: String, slot: Int)] = []
  /// How many of those are sent to a server that answers none.
  private static let mostProbes = 8
  /// How many replies were given up that may come nevertheless. One that nothing waits for is of them.
  private var overdue = 0

  /// The end of the connection: how it came. Fulfilled after the calls in flight have failed.
  public let disconnected = Promise<QMPError>()
  /// The same, known from the beginning of the end: who is told that a call has failed may come with the next.
  private var endedBy: QMPError?

  /// Commands written together, whose caller waits for all replies.
  private final class Batch {
    /// What has not come is as if it never will. What could not be sent has its result before what was.
    private var results: [Result<JSONVariant, QMPError>]
    private var missing: Int
    private let firstSlot: Int
    private let continuation: CheckedContinuation<[Result<JSONVariant, QMPError>], Never>
    init(count: Int, from firstSlot: Int, _ continuation: CheckedContinuation<[Result<JSONVariant, QMPError>], Never>) {
      results = Array(repeating: .failure(.disconnected), count: count)
      missing = count
      self.firstSlot = firstSlot
      self.continuation = continuation
    }
    func add(_ result: Result<JSONVariant, QMPError>, of slot: Int) {
      results[slot - firstSlot] = result
      missing -= 1
      if missing == 0 { continuation.resume(returning: results) }
    }
  }
  private struct Slot {
    let number: Int
    let command: String
    var since: ContinuousClock.Instant
    /// Who waits for the reply; nil once that has been given up.
    var batch: Batch?
    /// Takes the reply as it is; for commands that were submitted as text.
    var forward: ((Result<[UInt8], QMPError>) -> Void)?

    func fail(_ error: QMPError) {
      batch?.add(.failure(error), of: number)
      forward?(.failure(error))
    }
  }
  private var nextSlot = 0
  private struct Outgoing {
    var bytes: ArraySlice<UInt8>
    var descriptors: [CInt] = []
    /// The slot of the command that the descriptors are for, and how many of the bytes are its.
    var slot = -1
    var length = 0
    /// Owns the descriptors, if they had to wait: their caller may give up and close its own.
    var copies: Copies?
  }
  private final class Copies {
    let descriptors: PassedDescriptors
    init(of originals: [CInt]) throws(Errno) {
      var copies = PassedDescriptors()
      for original in originals {
        let copy = fcntl(original, F_DUPFD_CLOEXEC, 3)
        guard copy >= 0 else { throw Errno(rawValue: errno) }
        copies.append([copy])
      }
      descriptors = copies
    }
  }

  /// Takes over a connected stream socket.
  public init(_ socket: consuming OwnedDescriptor) throws(SystemdError) {
    let raw = socket.raw
    self.socket = socket
    readiness = try EventSource.descriptor(raw, .readable) { [weak self] in self?.ready($0) }
  }

  /// Goes on with a connection that was negotiated before, by another run of this program. Nothing is read before ``goOn()``.
  ///
  /// - Parameters:
  ///   - greeting: the ``greetingText`` of that time.
  ///   - unfinished: the ``unfinished`` message.
  public init(_ socket: consuming OwnedDescriptor, greeted greeting: [UInt8], unfinished: [UInt8]) throws {
    let raw = socket.raw
    self.socket = socket
    readiness = try EventSource.descriptor(raw, .readable) { [weak self] in self?.ready($0) }
    readiness?.isEnabled = false
    greeting.withUnsafeBytes { splitter.append($0) }
    if let fault = dispatchMessages() { throw fault }
    guard greeted.result != nil else { throw QMPError.greeting("what was kept of it is none") }
    unfinished.withUnsafeBytes { splitter.append($0) }
  }

  /// The greeting, once it came.
  public var greeting: Greeting? { try? greeted.result?.get() }

  /// Reads what comes, from now on.
  public func goOn() { readiness?.isEnabled = true }

  /// The message of which only the beginning came, while nothing else is under way; nil while something is: commands without replies,
  /// replies that were given up and may come yet, or a server that does not answer.
  public var unfinished: [UInt8]? {
    let isAtRest = pending.isEmpty && outgoing.isEmpty && probes.isEmpty && overdue == 0 && isResponding && endedBy == nil
    return isAtRest ? splitter.unfinished : nil
  }

  /// The socket's number, to pass it on.
  public var descriptorNumber: CInt { socket.raw }

  // The source goes before the descriptor that it watches.
  isolated deinit { readiness.cancel() }

  /// Connects to a server's UNIX socket.
  ///
  /// - Throws: ``QMPError/connect(path:_:)``.
  public convenience init(connectingTo path: FilePath) throws(QMPError) {
    do {
      try self.init(.connected(to: path))
    } catch {
      throw .connect(path: path.string, error.errno)
    }
  }

  /// The path that the server is bound to, in its own spelling; nil if it has none.
  public var serverPath: FilePath? { socket.peerPath }

  /// The process that listened at the server's socket; for a pair of connected sockets the one that made it.
  public var serverProcess: Int32? { PeerCredentials(of: socket).process }

  /// Negotiates, without waiting for the greeting first: a server reads what came early once it is ready.
  ///
  /// - Parameters:
  ///   - capabilities: what to enable of what the server can.
  ///   - limit: how long to wait for the greeting, and then for the reply; nil waits until the connection ends.
  /// - Returns: the greeting.
  @discardableResult
  public func negotiate(enabling capabilities: [String] = [], within limit: Duration? = nil) async throws(QMPError) -> Greeting {
    try await negotiate(enabling: capabilities, within: limit, followedBy: []).greeting
  }

  /// The same with commands right behind, which the server finds when it first reads.
  ///
  /// - Returns: the greeting, and what became of each of the commands.
  public func negotiate(
    enabling capabilities: [String] = [], within limit: Duration? = nil, followedBy commands: [QMPCommand]
  ) async throws(QMPError) -> (greeting: Greeting, results: [Result<JSONVariant, QMPError>]) {
    let answered = Promise<[Result<JSONVariant, QMPError>]>()
    let arguments = capabilities.isEmpty ? nil : JSONVariant.object(["enable": .array(capabilities.map { .string($0) })])
    startTask { answered.fulfil(await self.pipeline([QMPCommand("qmp_capabilities", arguments)] + commands)) }
    let greeting: Result<Greeting, QMPError>
    if let limit {
      guard let inTime = await greeted.value(within: limit) else {
        close()
        throw .greeting("nothing came within \(limit); a monitor serves one client at a time, and this one may have another")
      }
      greeting = inTime
    } else {
      greeting = await greeted.value
    }
    let results = if let limit { await answered.value(within: limit) } else { await answered.value }
    guard let results else {
      close()
      throw .timedOut
    }
    switch results[0] {
    case .success: break
    case .failure(.execute(_, let errorClass, let desc)): throw .negotiation(errorClass: errorClass, desc: desc)
    case .failure(let error): throw error
    }
    return (try greeting.get(), Array(results.dropFirst()))
  }

  /// Executes one command.
  ///
  /// - Parameter descriptors: go with the command's first byte; they stay the caller's.
  /// - Returns: the value of `return`.
  /// - Throws: ``QMPError/execute(command:errorClass:desc:)`` with the server's error, ``QMPError/notSent(_:)`` if the descriptors could
  ///   not go with it, or how the connection failed.
  @discardableResult
  public func execute(
    _ command: String, _ arguments: JSONVariant? = nil, descriptors: [CInt] = []
  ) async throws(QMPError) -> JSONVariant {
    try await pipeline([QMPCommand(command, arguments, descriptors: descriptors)])[0].get()
  }

  /// Executes commands without waiting between them. They are not a transaction: each succeeds or fails by itself.
  ///
  /// They go out in one write, and in one more from each command on that has descriptors, which go with its first byte: a QEMU keeps
  /// one descriptor of a message, for the command that it reads then.
  ///
  /// - Returns: the results in the commands' order.
  public func pipeline(_ commands: [QMPCommand]) async -> [Result<JSONVariant, QMPError>] {
    if let endedBy { return commands.map { _ in .failure(endedBy) } }
    guard isResponding else { return commands.map { _ in .failure(.timedOut) } }
    guard pending.count + commands.count <= Self.maximumPending else { return commands.map { _ in .failure(.overloaded) } }
    return await withCheckedContinuation { continuation in
      let batch = Batch(count: commands.count, from: nextSlot, continuation)
      let now = ContinuousClock.now
      var writes: [(bytes: [UInt8], descriptors: [CInt], slot: Int, length: Int)] = [([], [], nextSlot, 0)]
      for command in commands {
        if !command.descriptors.isEmpty { writes.append(([], command.descriptors, nextSlot, 0)) }
        let last = writes.count - 1
        command.appendWireForm(to: &writes[last].bytes)
        if !command.descriptors.isEmpty { writes[last].length = writes[last].bytes.count }
        pending.append(Slot(number: nextSlot, command: command.name, since: now, batch: batch))
        nextSlot += 1
      }
      // The first may be the end of the connection, which answers for all of them.
      for next in writes where !next.bytes.isEmpty && endedBy == nil {
        write(Outgoing(bytes: next.bytes[...], descriptors: next.descriptors, slot: next.slot, length: next.length))
      }
      if let responseLimit, watchdog == nil { watch(for: responseLimit) }
    }
  }

  /// Sends a command that is somebody else's as it is, with the id that it has or none, in its place among the others.
  ///
  /// No ``responseLimit`` is for it, and it does not make others fail: it waits as long as the server takes, also while the server
  /// does not answer.
  ///
  /// - Parameters:
  ///   - text: one whole JSON object that the server answers in order, with one reply.
  ///   - descriptors: go with its first byte; they stay the caller's. Where the system cannot pass them on, the command goes without.
  ///   - reply: gets the reply as it came, on one line and without its end. ``QMPError/timedOut`` means that it was lost on the way,
  ///     ``QMPError/unreadableReply(_:)`` that it was too long.
  public func submit(_ text: [UInt8], descriptors: [CInt] = [], reply: @escaping (Result<[UInt8], QMPError>) -> Void) {
    if let endedBy { return reply(.failure(endedBy)) }
    guard pending.count < Self.maximumPending + Self.maximumForwarded else { return reply(.failure(.overloaded)) }
    let slot = nextSlot
    pending.append(Slot(number: slot, command: "", since: .now, batch: nil, forward: reply))
    nextSlot += 1
    write(Outgoing(bytes: text[...], descriptors: descriptors, slot: slot, length: text.count))
  }

  private func watch(for delay: Duration) {
    watchdogDue = .now + delay
    watchdog = try? EventSource.timer(after: delay) { [weak self] in self?.checkResponses() }
  }

  private func checkResponses() {
    watchdog = nil
    if !isResponding { return probe() }
    guard let responseLimit, let oldest = pending.first(where: { $0.batch != nil }) else { return }
    let now = ContinuousClock.now
    if now - watchdogDue >= responseLimit / 2 {
      // This process stood still, and so did the server, most likely: a suspended system, or one that had no time. It has its time anew.
      for index in pending.indices { pending[index].since = now }
      return watch(for: responseLimit)
    }
    let waited = now - oldest.since
    guard waited >= responseLimit else { return watch(for: responseLimit - waited) }
    isResponding = false
    for index in pending.indices {
      let batch = pending[index].batch
      pending[index].batch = nil
      batch?.add(.failure(.timedOut), of: pending[index].number)
    }
    probe()
  }

  private func probe() {
    guard probes.count < Self.mostProbes else { return }
    let id = String(UInt64.random(in: 1 << 60...UInt64.max), radix: 36)
    probes.append((id, nextSlot))
    // Damage in it may be what keeps its end, and all that follows, from being seen. But more likely it is a server that was
    // stopped in the middle of it, and a reply that is forwarded must not be lost to a suspicion, nor the next one take its place.
    if !pending.contains(where: { $0.forward != nil }) { splitter.skipUnfinished() }
    write(Outgoing(bytes: Array(#"{"execute":"query-name","id":"\#(id)"}"#.utf8)[...]))
    if let responseLimit { watch(for: responseLimit) }
  }

  /// Whether a message is the answer to a probe, or, while the server does not answer in time, to a command that was given up:
  /// nobody's in both cases.
  private func isNobodys(_ message: JSONVariant) -> Bool {
    if !probes.isEmpty, let id = message["id"]?.string, let index = probes.firstIndex(where: { $0.id == id }) {
      let slot = probes[index].slot
      probes.removeFirst(index + 1)
      if !isResponding {
        // Behind the question there are only such as are forwarded.
        let lost = Array(pending.prefix { $0.number < slot })
        pending.removeFirst(lost.count)
        overdue = lost.count
        watchdog = nil
        isResponding = true
        for slot in lost { slot.forward?(.failure(.timedOut)) }
      }
      return true
    }
    guard !isResponding, message["return"] != nil || message["error"] != nil else { return false }
    if !pending.isEmpty { pending.removeFirst() }
    return true
  }

  /// Whether a message is the reply to a command that was submitted as text. Told by how it begins: what an id of that command's
  /// comes back as need not even be JSON.
  private func isForwarded(_ message: UnsafeBufferPointer<UInt8>) -> Bool {
    guard pending.first?.forward != nil, MessageKind(of: message) == .reply, let start = message.baseAddress else { return false }
    return probes.allSatisfy { memmem(start, message.count, $0.id, $0.id.utf8.count) == nil }
  }

  /// Ends the connection; calls in flight fail.
  public func close() { end(.disconnected) }

  // MARK: the socket

  private func write(_ next: Outgoing) {
    outgoing.append(next)
    if outgoing.count == 1 { flush() }
    guard !next.descriptors.isEmpty,
      let index = outgoing.lastIndex(where: { $0.slot == next.slot && !$0.descriptors.isEmpty })
    else { return }
    do throws(Errno) {
      let copies = try Copies(of: next.descriptors)
      outgoing[index].copies = copies
      outgoing[index].descriptors = copies.descriptors.raw
    } catch {
      giveUpDescriptors(at: index, error)
    }
  }

  /// Does without descriptors that the system does not pass on, of which nothing has been sent.
  ///
  /// Their command is taken back, and what was to be sent with it still is. One that was submitted as text goes without them, in its
  /// place among the others, and the server says that it has none.
  private func giveUpDescriptors(at index: Int, _ errno: Errno) {
    outgoing[index].descriptors = []
    outgoing[index].copies = nil
    let number = outgoing[index].slot
    guard let slot = pending.firstIndex(where: { $0.number == number }), pending[slot].forward == nil else { return }
    outgoing[index].bytes.removeFirst(outgoing[index].length)
    if outgoing[index].bytes.isEmpty { outgoing.remove(at: index) }
    pending.remove(at: slot).fail(.notSent(errno))
  }

  private func flush() {
    while let next = outgoing.first {
      let transfer = next.bytes.withUnsafeBytes { send(socket.raw, isSocket: true, $0, descriptors: next.descriptors) }
      switch transfer {
      case .bytes(let count) where count == next.bytes.count:
        outgoing.removeFirst()
      case .bytes(let count):
        outgoing[0].bytes.removeFirst(count)
        outgoing[0].descriptors = []
        outgoing[0].copies = nil
      case .wouldBlock:
        readiness?.interest = [.readable, .writable]
        return
      case .failed(.brokenPipe), .failed(.connectionReset):
        // What the server said before it went is still to be read; its end of file ends the connection.
        outgoing.removeAll()
      case .failed(let errno) where !next.descriptors.isEmpty:
        // It is they that the system does not pass on: too many are on their way, or one is none.
        giveUpDescriptors(at: 0, errno)
      case .failed:
        // The order of replies cannot be kept when a command is lost.
        return end(.disconnected)
      }
    }
    readiness?.interest = .readable
  }

  private func ready(_ ready: Readiness) {
    if ready.contains(.writable) { flush() }
    if !ready.isDisjoint(with: [.readable, .hangUp, .error]) { readAvailable() }
  }

  /// What every client reads into; the splitter takes it from there at once.
  private static let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)

  private func readAvailable() {
    var descriptors = PassedDescriptors()
    // A server that never stops sending must not keep the loop: what is left is read in the next turn.
    for _ in 0..<8 {
      switch receive(socket.raw, isSocket: true, into: Self.scratch, descriptors: &descriptors) {
      case .bytes(0): return end(.disconnected)
      case .bytes(let count):
        descriptors.close()
        splitter.append(UnsafeRawBufferPointer(rebasing: Self.scratch[..<count]))
        if let fault = dispatchMessages() { return end(fault) }
        if endedBy != nil || count < Self.scratch.count { return }
      case .wouldBlock: return
      case .failed: return end(.disconnected)
      }
    }
  }

  /// One message of the server.
  private enum Incoming {
    /// The reply to a command that was submitted as text.
    case forwarded([UInt8])
    /// The text is there if it is an event's and asked for.
    case parsed(JSONVariant, text: [UInt8])
    case unreadable(MessageKind, reason: String, text: [UInt8])
  }

  private func dispatchMessages() -> QMPError? {
    do throws(QMPError) {
      while endedBy == nil {
        let next: Incoming?
        do throws(MessageSplitter.Fault) {
          next = try splitter.next { read($0, depth: $1) }
        } catch .tooLong(let limit, let beginning) {
          try passOver(MessageKind(of: beginning), "it is longer than \(limit) bytes")
          continue
        } catch {
          throw .badReply("\(error)")
        }
        switch next {
        case nil: return nil
        case .forwarded(let text)?: pending.removeFirst().forward?(.success(text))
        case .unreadable(let kind, let reason, let text)?: try passOver(kind, reason, text: text)
        case .parsed(let message, let text)?:
          if isNobodys(message) { continue }
          let told = try ServerMessage(message, text)
          if told.isReply, pending.isEmpty, overdue > 0 {
            overdue -= 1
          } else {
            try dispatch(told)
          }
        }
      }
      return nil
    } catch {
      return error
    }
  }

  /// Takes a message with a NUL behind it for what it is.
  private func read(_ bytes: UnsafeBufferPointer<UInt8>, depth: Int) -> Incoming {
    let text = bytes.dropLast()
    if isForwarded(bytes) { return .forwarded(onOneLine(text)) }
    do throws(JSONError) {
      if depth > Self.deepestMessage { throw JSONError("nested deeper than \(Self.deepestMessage) levels") }
      let message = try JSONVariant(parsingTerminated: bytes)
      if message["QMP"] != nil { greetingText = onOneLine(text) }
      return .parsed(message, text: keepsEventText && message["event"] != nil ? onOneLine(text) : [])
    } catch {
      let kind = MessageKind(of: bytes)
      return .unreadable(kind, reason: "\(error)", text: keepsEventText && kind == .event ? onOneLine(text) : [])
    }
  }

  /// A message that is too long, or that is whole and cannot be parsed, hurts only whom it is for.
  ///
  /// - Parameter text: of an event; nil if it is not known.
  /// - Throws: the reason, if it shows that the server is none.
  private func passOver(_ kind: MessageKind, _ reason: String, text: [UInt8]? = nil) throws(QMPError) {
    guard greeted.result != nil else { throw .badReply(reason) }
    switch kind {
    case .greeting: throw .badReply(reason)
    case .event: if let text { onEvent?(QMPEvent(unreadable: text)) }
    case .reply:
      if let slot = pending.popFirst() {
        slot.fail(.unreadableReply(reason))
      } else if isResponding {
        guard overdue > 0 else { throw .badReply("a reply to no command") }
        overdue -= 1
      }
    }
  }

  private func dispatch(_ message: ServerMessage) throws(QMPError) {
    switch message {
    case .greeting(let greeting): greeted.fulfil(.success(greeting))
    case .event(let event): onEvent?(event)
    case .reply(let value):
      guard let slot = pending.popFirst() else { throw .badReply("a reply to no command") }
      slot.batch?.add(.success(value), of: slot.number)
    case .error(let errorClass, let desc):
      guard let slot = pending.popFirst() else { throw .badReply("an error reply to no command: \(desc)") }
      slot.batch?.add(.failure(.execute(command: slot.command, errorClass: errorClass, desc: desc)), of: slot.number)
    }
  }

  private func end(_ error: QMPError) {
    guard endedBy == nil else { return }
    endedBy = error
    readiness.cancel()
    // The descriptor itself closes with this object; the server learns of the end now.
    shutdown(socket.raw, CInt(SHUT_RDWR))
    outgoing.removeAll()
    let unanswered = pending
    pending.removeAll()
    watchdog = nil
    for slot in unanswered { slot.fail(error) }
    greeted.fulfil(.failure(error))
    disconnected.fulfil(error)
  }
}

extension QMPCommand {
  /// Appends the shortest form that QEMU accepts: no spaces, no id, no line end.
  @EventLoopActor
  func appendWireForm(to bytes: inout [UInt8]) {
    bytes.append(contentsOf: (isOutOfBand ? #"{"exec-oob":""# : #"{"execute":""#).utf8)
    bytes.append(contentsOf: name.utf8)
    bytes.append(UInt8(ascii: "\""))
    if let arguments {
      bytes.append(contentsOf: #","arguments":"#.utf8)
      arguments.withText { bytes.append(contentsOf: $0) }
    }
    bytes.append(UInt8(ascii: "}"))
  }
}
