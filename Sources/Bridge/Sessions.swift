public import Logging
public import Machine
import QMP
import Relay
public import SystemdEvent
public import SystemdJSON
import Varlink

/// The upgraded sessions: each a monitor of its own, and a relay between it and the client.
@EventLoopActor
public final class Sessions {
  /// How many sessions there may be, and what each may take. A session counts until its monitor is gone: one whose last
  /// command does not come back takes its place until it does, and the next caller is refused.
  public struct Limits: Sendable {
    public var total: Int
    public var perUser: Int
    /// Bytes of replies and events that a client may leave unread.
    public var unread: Int
    /// How long a session must have been idle to be parked; nil parks none.
    public var parkAfter: Duration?
    /// How many monitors the sessions may have at once; one more waits for one.
    public var activeMonitors: Int
    /// Whether the commands of sessions with full access are logged.
    public var audits: Bool
    public init(
      total: Int = 1024, perUser: Int = 512, unread: Int = 16 << 20, parkAfter: Duration? = .seconds(5), activeMonitors: Int = 256,
      audits: Bool = false
    ) {
      self.audits = audits
      self.total = total
      self.perUser = perUser
      self.unread = unread
      self.parkAfter = parkAfter
      self.activeMonitors = activeMonitors
    }
  }

  /// What happened to a session; `io.qmpvarlink.Sessions.Change`.
  enum Change: String {
    case current, opened, changed, closed
  }

  private let machine: Machine
  private let limits: Limits
  private let shared: SharedSessions
  private var sharedCounter = 0
  private let logger: Logger
  private lazy var parking = Parking(
    machine: machine, options: Parking.Options(after: limits.parkAfter, mostActive: limits.activeMonitors), logger: logger
  ) { [weak self, logger] in await self?.removeMonitor($0, logger) }
  /// Those that are open, in the order in which they were opened.
  private(set) var all: [Session] = []
  /// The users of those that are being opened.
  private var opening: [UInt32?] = []
  private var isStopping = false
  /// None begins; see ``settle(within:)``.
  private var isSettling = false
  private let watchers = Subscribers<(Change, Session)>()
  private var empty: Promise<Void>?
  private let crowd = Crowd()
  private var spareTimer: EventSource?
  /// How long a new session waits when all monitors are in use. Those that have them may never give them back.
  private static let turnLimit = Duration.seconds(10)
  /// How long a spare control monitor is kept after the last session.
  private static let spareKept = Duration.seconds(30)

  public init(machine: Machine, limits: Limits = Limits(), logger: Logger) {
    self.machine = machine
    self.limits = limits
    shared = SharedSessions(machine: machine, logger: logger)
    self.logger = logger
  }

  /// Turns the connection over to a monitor. Returns when the session has begun; it ends by itself.
  ///
  /// - Parameter mode: whose monitor; nil for one of the caller's own where QEMU can add monitors.
  /// - Throws: ``MachineError/notSupported(_:)`` for a monitor of one's own where it cannot.
  func open(_ call: VarlinkCall, access: Access, mode: SessionMode?) async throws {
    let user = call.peer.user
    try checkLimits(user)
    opening.append(user)
    defer {
      if let index = opening.firstIndex(of: user) { opening.remove(at: index) }
      checkEmpty()
    }

    if try await isShared(mode) { return try await openShared(call, access) }
    // Before the session is there that might delete the other one.
    await machine.keepSpareMonitor()
    guard await parking.turns.begin(within: Self.turnLimit, orUntil: { call.whenCallerGoes($0) }) else {
      throw Self.refusal(limits.activeMonitors, perUser: false)
    }
    var hasTurn = true
    defer { if hasTurn { parking.turns.end() } }
    // Others may have taken long.
    try checkStopping()
    let added = try await machine.monitors.add()
    let id = added.id
    let (client, failure) = await upgrade(call, id)
    // With no client, whatever the reason, the relay has only to bring the monitor to rest.
    let session = try begin(id, access: access, peer: call.peer, isUpgraded: true, client: client, monitor: added.takeSocket())
    parking.began(session)
    hasTurn = false
    if let failure { throw failure }
  }

  /// Turns the connection over: its two descriptors, or nil if the caller went first, or why not.
  private func upgrade(_ call: VarlinkCall, _ id: String) async -> (client: (input: CInt, output: CInt)?, failure: (any Error)?) {
    do { return (try await call.upgrade(.object(["id": .string(id)]))?.take(), nil) } catch { return (nil, error) }
  }

  private func isShared(_ mode: SessionMode?) async throws(MachineError) -> Bool {
    switch mode {
    case .own:
      guard try await machine.canAddMonitors() else {
        throw .notSupported("this QEMU cannot add monitors while it runs (QEMU 11.1 can): there are only sessions that share one")
      }
      return false
    case .shared: return true
    case nil: if shared.isOnlyWay { return true } else { return try await !machine.canAddMonitors() }
    }
  }

  private func openShared(_ call: VarlinkCall, _ access: Access) async throws {
    sharedCounter += 1
    let id = "shared-\(sharedCounter)"
    if !shared.isOnlyWay, try await machine.canAddMonitors() { await machine.keepSpareMonitor() }
    let opening = try await shared.open()
    let place = opening.place
    let (client, failure) = await upgrade(call, id)
    do {
      try begin(id, access: access, peer: call.peer, isUpgraded: true, place: place, client: client, monitor: opening.takeSocket())
    } catch {
      await shared.close(place)
      throw error
    }
    if let failure { throw failure }
  }

  /// Connects a client to a monitor that was added for whoever comes.
  func open(_ id: String, client: consuming OwnedDescriptor, monitor: consuming OwnedDescriptor) async throws(SystemdError) -> Session {
    await machine.keepSpareMonitor()
    let peer = PeerCredentials(of: client)
    let output = try client.duplicate()
    let descriptors = (input: client.take(), output: output.take())
    return try begin(id, access: .full, peer: peer, isUpgraded: false, client: descriptors, monitor: monitor)
  }

  @discardableResult
  private func begin(
    _ id: String, access: Access, peer: PeerCredentials, isUpgraded: Bool, place: SharedSessions.Place? = nil,
    client: (input: CInt, output: CInt)?, monitor: consuming OwnedDescriptor
  ) throws(SystemdError) -> Session {
    let relay: Relay
    do {
      relay = try Relay(client: client, monitor: monitor, options: options(id, access, peer))
    } catch {
      // Nothing has been written to the monitor, so it is at rest. A place on a shared one is given back by who took it.
      if place == nil { startTask { await self.removeMonitor(id, self.logger) } }
      throw error
    }
    let session = Session(id: id, access: access, peer: peer, isUpgraded: isUpgraded, place: place, relay: relay)
    begin(session)
    return session
  }

  private func options(_ id: String, _ access: Access, _ peer: PeerCredentials) -> Relay.Options {
    var options = Relay.Options()
    options.unreadLimit = limits.unread
    if access == .query { options.refusal = { QueryAccess.refusal($0) } }
    if access == .full, limits.audits {
      var logger = logger
      logger[metadataKey: "session"] = "\(id)"
      logger[metadataKey: "uid"] = "\(peer.user.map(String.init) ?? "unknown")"
      let trail = AuditTrail(logger)
      options.onInput = { trail.consume($0) }
    }
    return options
  }

  /// The session of that id.
  func session(_ id: String) -> Session? { all.first { $0.id == id } }

  /// The session that has the monitor of that id.
  func session(onMonitor id: String) -> Session? { all.first { $0.monitor == id } }

  private func checkLimits(_ user: UInt32?) throws(VarlinkError) {
    try checkStopping()
    // Those on monitors that were added are bounded by the number of these.
    let upgraded = all.filter(\.isUpgraded)
    if upgraded.count + opening.count >= limits.total { throw Self.refusal(limits.total, perUser: false) }
    let own = upgraded.count { $0.peer.user == user } + opening.count { $0 == user }
    if own >= limits.perUser { throw Self.refusal(limits.perUser, perUser: true) }
  }

  private static func refusal(_ limit: Int, perUser: Bool) -> VarlinkError {
    VarlinkError("io.systemd.QemuMachineInstance.TooManySessions", .object(["limit": .integer(limit), "perUser": .boolean(perUser)]))
  }

  private func checkStopping() throws(VarlinkError) {
    guard isStopping || isSettling else { return }
    let reason = isStopping ? "the daemon stops" : "the daemon is being replaced: call again"
    throw VarlinkError("io.systemd.MachineInstance.NotConnected", .object(["reason": .string(reason)]))
  }

  private func begin(_ session: Session) {
    var logger = logger
    logger[metadataKey: "session"] = "\(session.id)"
    all.append(session)
    crowd.enter()
    session.relay.onStateChange = { [weak self, weak session] in
      guard let self, let session else { return }
      // The rest of what it sent is for nobody; a monitor of its own QEMU empties by itself.
      if session.relay.clientIsGone { session.place?.endpoint.abandon() }
      if session.relay.state == .stuck {
        logger.warning("a command does not come back; the session waits for it", metadata: ["session": "\(session.id)"])
        if let monitor = session.monitor ?? session.place?.monitor { startTask { [machine] in await machine.examineMonitor(monitor) } }
      }
      self.publish(.changed, session)
    }
    publish(.opened, session)
    spareTimer = nil
    startTask { await self.end(session, logger) }
    // One that was being opened meanwhile.
    if isStopping { session.relay.stop(because: "the daemon stops") }
  }

  /// How long the client's end of file waits for the monitor's removal. It should tell that nothing of the session is left,
  /// but must not depend on a QEMU that does not answer.
  private static let removalShown = Duration.seconds(1)

  /// Waits for the session's end, and clears up.
  private func end(_ session: Session, _ logger: Logger) async {
    let relay = session.relay
    // The greeting goes first, unless the loop does not come to rest all session long.
    var whenIdle = try? EventSource.whenIdle { session.announce(logger) }
    let removed = Promise<Void>()
    // Its turn ends with its monitor; its client may take longer.
    if session.isUpgraded, session.place == nil { removed.whenFulfilled { [parking] _ in parking.ended(session) } }
    let end = await relay.drained.value
    whenIdle.cancel()
    session.announce(logger)
    if let place = session.place {
      startTask {
        await self.shared.close(place)
        removed.fulfil()
      }
      _ = await removed.value(within: Self.removalShown)
    } else {
      switch end {
      case .drained:
        startTask {
          if let monitor = session.monitor { await self.removeMonitor(monitor, logger) }
          session.monitorIsRemoved = true
          removed.fulfil()
        }
        _ = await removed.value(within: Self.removalShown)
      case .monitorGone:
        // QEMU has ended, most likely; but a chardev can be closed by other means too.
        if let monitor = session.monitor { await machine.discardMonitor(monitor) }
        session.monitorIsRemoved = true
        removed.fulfil()
      case .parked: removed.fulfil()
      }
    }
    await relay.deliver()
    await removed.value
    all.removeAll { $0 === session }
    crowd.leave()
    logger.info("session closed\(relay.reasonForEnd.map { ": \($0)" } ?? "")")
    publish(.closed, session)
    session.ended.fulfil(end)
    checkEmpty()
    if all.isEmpty {
      spareTimer = try? EventSource.timer(after: Self.spareKept) { [machine] in startTask { await machine.dropSpareMonitor() } }
    }
    await relay.linger()
  }

  /// Removes a monitor that is at rest.
  func removeMonitor(_ id: String, _ logger: Logger) async {
    do {
      try await machine.monitors.remove(id)
    } catch .qmp(.disconnected) {
      // QEMU took it along.
    } catch {
      logger.error("the monitor could not be removed: \(error)")
    }
  }

  // MARK: watching

  /// Calls `handler` with each change from now on, until ``unwatch(_:)``.
  func watch(_ handler: @escaping (Change, Session) -> Void) -> Int {
    watchers.add { handler($0.0, $0.1) }
  }

  func unwatch(_ watcher: Int) { watchers.remove(watcher) }

  private func publish(_ change: Change, _ session: Session) { watchers.publish((change, session)) }

  // MARK: another run of the daemon

  /// How long sessions that are about to end may take to.
  private static let endLimit = Duration.seconds(2)

  /// Has no session begin, be parked or woken from now on, and waits for those that are about to, or to end; but no longer than `limit`.
  public func settle(within limit: Duration) async {
    isSettling = true
    let deadline = ContinuousClock.now + limit
    await parking.settle(within: limit)
    for session in all where session.place == nil && session.relay.state == .draining {
      _ = await session.ended.value(within: min(Self.endLimit, max(.zero, deadline - .now)))
    }
  }

  /// Ends the sessions that share a monitor, which are not handed over; the last thing before that is done. One whose client does not read
  /// what it is owed is not waited for.
  public func endShared() async {
    let shared = all.filter { $0.place != nil }
    for session in shared { session.relay.stop(because: "the daemon is being replaced, and the monitor that sessions share with it") }
    let deadline = ContinuousClock.now + Self.endLimit
    for session in shared { _ = await session.ended.value(within: max(.zero, deadline - .now)) }
  }

  /// Goes on after ``settle(within:)``: there is no other run.
  public func unsettle() {
    isSettling = false
    parking.unsettle()
    if !all.isEmpty { startTask { [machine] in await machine.keepSpareMonitor() } }
  }

  /// The sessions as they are, for the next run of the daemon.
  ///
  /// - Throws: ``Handover/Failure`` if one cannot be handed over at this moment.
  public func carried(_ handover: Handover) throws -> JSONVariant {
    guard opening.isEmpty else { throw Handover.Failure("a session is beginning") }
    return .object([
      "sessions": .array(
        try all.filter { $0.place == nil }.map { session in
          guard !session.isParking, !(session.isWaking && session.hasTurn), !session.isBeingRemoved,
            let carried = try session.carried(handover)
          else {
            throw Handover.Failure("the session \(session.id) is in the middle of something")
          }
          return carried
        }),
      "shared": .integer(sharedCounter),
    ])
  }

  /// Goes on with the sessions that the run of the daemon before had. One that cannot be gone on with is lost, and no other.
  public func goOn(with carried: JSONVariant, _ handover: Handover) {
    sharedCounter = Int(carried["shared"]?.integer ?? 0)
    for carried in carried["sessions"]?.elements ?? [] {
      do {
        let session = try Session(carried: carried) { id, access, peer, relay in
          if let monitor = carried["monitor"]?.string, let end = try handover.copy(relay["monitor"]) {
            machine.monitors.adopt(monitor, end: end)
          }
          let options = options(id, access, peer)
          // From the middle of what nobody has kept, commands could be told apart in another way than QEMU does.
          if options.onInput != nil, relay["commands"]?["raw"]?.boolean == true {
            throw Handover.Failure("what it is in the middle of is not known, so its commands could not be logged")
          }
          // The beginning of a command, whose end is logged.
          relay["commands"]?["held"]?.bytes?.withUnsafeBytes { options.onInput?($0) }
          return try Relay(carried: relay, handover, options: options)
        }
        begin(session)
        if session.isUpgraded { parking.goOn(session) }
      } catch {
        logger.error("a session is lost: \(error)", metadata: ["session": "\(carried["id"]?.string ?? "?")"])
        if let monitor = carried["monitor"]?.string { startTask { [machine] in await machine.discardMonitor(monitor) } }
      }
    }
    if !all.isEmpty { startTask { [machine] in await machine.keepSpareMonitor() } }
  }

  // MARK: the end of all

  private func checkEmpty() {
    if all.isEmpty, opening.isEmpty {
      empty?.fulfil()
      empty = nil
    }
  }

  /// Ends all sessions, and waits for that, but no longer than `limit`.
  public func stop(within limit: Duration) async {
    isStopping = true
    for session in all where [.active, .parked].contains(session.relay.state) { session.relay.stop(because: "the daemon stops") }
    await finished(within: limit)
    await parking.finish(within: limit)
  }

  /// Waits until every session has ended and its client has what it is owed, but no longer than `limit`.
  public func finished(within limit: Duration) async { _ = await emptiness()?.value(within: limit) }

  /// Waits until every session has ended, and those that are about to begin.
  public func finished() async { await emptiness()?.value }

  /// What tells when there are none any more; nil if there are none.
  private func emptiness() -> Promise<Void>? {
    guard !all.isEmpty || !opening.isEmpty else { return nil }
    let empty = empty ?? Promise<Void>()
    self.empty = empty
    return empty
  }
}
