import Logging
import Machine
import QMP
import Relay
import SystemdEvent

/// Takes the monitors of idle sessions away and gives them one again when they need it.
///
/// An idle monitor costs every command of its machine time; a parked session costs nothing. It has its events from the daemon's own
/// feed meanwhile, and ``EventFence`` says where it changes from one to the other. What cannot be said for certain ends the session
/// with a reason: a client that is told nothing would go on with a gap.
@EventLoopActor
final class Parking {
  /// When sessions are parked.
  struct Options: Sendable {
    /// How long a session must have been idle; nil parks none.
    var after: Duration?
    /// How many monitors sessions may have at once. One more session waits, and those that have a monitor and are idle or have had
    /// it for ``Parking/slice`` give it back.
    var mostActive: Int
  }

  /// How long a session keeps its monitor when others wait for one.
  private static let slice = Duration.milliseconds(50)
  /// How long QEMU may let a session wait before its monitor is looked after.
  private static let patience = Duration.seconds(2)
  /// How many sessions are parked at once.
  private static let mostAtOnce = 8

  let turns: Turns
  private let machine: Machine
  private let options: Options
  private let logger: Logger
  private let standby: StandbyMonitors
  private var attached: [ObjectIdentifier: Session] = [:]
  private var parked: [ObjectIdentifier: Session] = [:]
  private var underWay = 0
  private var timer: EventSource?
  /// No session is parked or woken; see ``settle(within:)``.
  private var isSettling = false
  private var settled: Promise<Void>?

  /// - Parameter remove: removes a monitor that is at rest, by its id.
  init(machine: Machine, options: Options, logger: Logger, remove: @escaping (String) async -> Void) {
    self.machine = machine
    self.options = options
    self.logger = logger
    turns = Turns(limit: options.mostActive)
    standby = StandbyMonitors(machine: machine, remove: remove)
    turns.onWait = { [weak self] in if let self, self.underWay < Self.mostAtOnce { self.look() } }
    machine.feed.onEvent = { [weak self] in self?.tell($0) }
    machine.feed.onGap = { [weak self] in self?.feedHasGap() }
    machine.disconnected.whenFulfilled { [weak self] _ in self?.machineIsGone() }
  }

  /// Looks after a session that has a monitor, and a turn.
  func began(_ session: Session) {
    session.hasTurn = true
    session.turnBegan = .now
    attached[ObjectIdentifier(session)] = session
    wakeWhenNeeded(session)
    watch()
  }

  private func wakeWhenNeeded(_ session: Session) {
    session.relay.onWake = { [weak self, weak session] in
      guard let self, let session else { return }
      startTask { await self.wake(session) }
    }
  }

  /// The session's monitor is gone for good.
  func ended(_ session: Session) {
    attached[ObjectIdentifier(session)] = nil
    leaveParked(session)
    endTurn(session)
  }

  private func endTurn(_ session: Session) {
    guard session.hasTurn else { return }
    session.hasTurn = false
    turns.end()
  }

  // MARK: who is parked

  /// Looks now and then for sessions to be parked, while there are any that might.
  private func watch() {
    guard timer == nil, !isSettling, let after = options.after, !attached.isEmpty else { return }
    let interval = turns.waitingCount > 0 ? Self.slice / 2 : min(max(after / 4, .milliseconds(10)), .seconds(1))
    timer = try? EventSource.timer(after: interval) { [weak self] in
      self?.timer = nil
      self?.look()
    }
  }

  private func look() {
    guard !isSettling, let after = options.after else { return }
    let now = ContinuousClock.now
    for session in attached.values { examine(session, now) }
    let sessions = attached.values.filter { !$0.isParking }.sorted {
      $0.relay.statistics.lastCommand < $1.relay.statistics.lastCommand
    }
    var needed = turns.waitingCount - underWay
    for session in sessions where underWay < Self.mostAtOnce {
      let relay = session.relay
      let isIdle = now - relay.statistics.lastCommand >= after
      let isDue = needed > 0 && (now - session.turnBegan >= Self.slice)
      if (isIdle || isDue) && relay.canPark() {
        startParking(session, byForce: false)
        needed -= 1
      } else if isDue, relay.isNegotiated, relay.canPark(byForce: true) {
        startParking(session, byForce: true)
        needed -= 1
      }
    }
    if turns.waitingCount > 0 { timer = nil }
    watch()
  }

  /// Looks now and then whether the monitor of a session that QEMU lets wait is there at all. Another client may have deleted it, even
  /// while it waited for its session: QEMU says nothing of that, and its chardev goes on taking commands.
  private func examine(_ session: Session, _ now: ContinuousClock.Instant) {
    let statistics = session.relay.statistics
    guard session.isParking || statistics.commands > statistics.replies else { return }
    guard now - max(session.examined, statistics.lastCommand) >= Self.patience, let id = session.monitor else { return }
    session.examined = now
    startTask { await self.machine.examineMonitor(id) }
  }

  private func startParking(_ session: Session, byForce: Bool) {
    session.isParking = true
    session.examined = .now
    underWay += 1
    startTask {
      await self.park(session, byForce: byForce)
      session.isParking = false
      self.underWay -= 1
      // One that could not be parked is tried again later: QEMU may not answer.
      if session.relay.hasMonitor { self.watch() } else { self.look() }
      self.checkSettled()
    }
  }

  private func park(_ session: Session, byForce: Bool) async {
    let (relay, feed) = (session.relay, machine.feed)
    // This is a job of its own: something may have come between.
    guard let id = session.monitor, relay.canPark(byForce: byForce) else { return }
    let (isNegotiated, gaps) = (relay.isNegotiated, feed.gaps)
    var fence = EventFence.Parking()
    relay.watchEvents()
    if isNegotiated {
      guard await machine.fenceFeed(), relay.watchesEvents, relay.canPark(byForce: byForce) else { return relay.forgetEvents() }
      fence.fenced = feed.position
    }
    guard await relay.beginParking({ fence.drainWritten = feed.position }) else { return }
    fence.removalAsked = feed.position
    do {
      try await machine.monitors.remove(id)
    } catch {
      if machine.disconnected.result == nil {
        logger.error("the monitor could not be removed: \(error)")
        await machine.discardMonitor(id)
      }
      return relay.giveUp(because: "its monitor could not be removed")
    }
    await relay.monitorClosed()
    fence.removed = feed.position
    attached[ObjectIdentifier(session)] = nil
    guard relay.drained.result == nil else { return }
    var missing: [[UInt8]]? = []
    if isNegotiated {
      let (events, drained) = relay.watchedEvents
      let end = gaps == feed.gaps ? fence.end(of: events, drained: drained, in: feed.window) : nil
      missing = end.flatMap { feed.events(from: $0) }
    }
    guard let missing else { return relay.giveUp(because: "it cannot be told which events its client has had") }
    parked[ObjectIdentifier(session)] = session
    relay.park(delivering: missing)
    session.monitor = nil
    endTurn(session)
    standby.isWanted = !parked.isEmpty
  }

  private func leaveParked(_ session: Session) {
    guard parked.removeValue(forKey: ObjectIdentifier(session)) != nil, parked.isEmpty else { return }
    standby.isWanted = false
  }

  // MARK: while it is parked

  private func tell(_ event: [UInt8]) {
    standby.feedMoved()
    for session in parked.values where session.relay.isNegotiated && session.relay.drained.result == nil {
      session.relay.deliver(event: event)
    }
  }

  private func feedHasGap() {
    standby.feedHasGap()
    for session in parked.values where session.relay.isNegotiated {
      session.relay.giveUp(because: "events may have been missed: the daemon's own monitor was removed from QEMU")
    }
  }

  /// With no sessions any more: waits until nothing is left in QEMU of what was made for those that might have woken, but no longer than
  /// `limit`.
  func finish(within limit: Duration) async { await standby.finish(within: limit) }

  private func machineIsGone() {
    turns.open()
    for session in parked.values { session.relay.giveUp(because: "the machine is gone") }
  }

  // MARK: another run of the daemon

  /// Has no session be parked or woken from now on, and waits until none is about to be, but no longer than `limit`.
  func settle(within limit: Duration) async {
    isSettling = true
    let deadline = ContinuousClock.now + limit
    if !isSettled {
      let settled = settled ?? Promise<Void>()
      self.settled = settled
      guard await settled.value(within: limit) != nil else { return }
    }
    await standby.finish(within: max(.zero, deadline - .now))
  }

  /// Whether no session is about to be parked or woken.
  private var isSettled: Bool { underWay == 0 && parked.values.allSatisfy { !($0.isWaking && $0.hasTurn) } }

  private func checkSettled() {
    guard isSettling, isSettled else { return }
    settled?.fulfil()
    settled = nil
  }

  /// Goes on after ``settle(within:)``: there is no other run.
  func unsettle() {
    isSettling = false
    standby.goOn()
    standby.isWanted = !parked.isEmpty
    for session in parked.values { wakeIfNeeded(session) }
    look()
  }

  /// Looks after a session that the run of the daemon before had.
  func goOn(_ session: Session) {
    guard session.relay.drained.result == nil else { return }
    if session.relay.hasMonitor {
      turns.goOn()
      return began(session)
    }
    parked[ObjectIdentifier(session)] = session
    standby.isWanted = true
    wakeWhenNeeded(session)
    wakeIfNeeded(session)
  }

  private func wakeIfNeeded(_ session: Session) {
    if session.relay.waitsForMonitor { startTask { await self.wake(session) } }
  }

  // MARK: its end

  private func wake(_ session: Session) async {
    let relay = session.relay
    guard parked[ObjectIdentifier(session)] != nil, !session.hasTurn, !session.isWaking, !isSettling else { return }
    session.isWaking = true
    defer {
      session.isWaking = false
      checkSettled()
    }
    await turns.begin()
    guard !isSettling else { return turns.end() }
    session.hasTurn = true
    session.turnBegan = .now
    while relay.drained.result == nil {
      do {
        let ready = try await standby.take(negotiated: relay.isNegotiated)
        if try await attach(session, to: ready) { return watch() }
      } catch MachineError.qmp(.timedOut), MachineError.qmp(.disconnected) {
        // QEMU is busy, or was stopped; its end would end this session too. A session with a monitor would wait as well.
        await machine.recovered()
      } catch {
        relay.giveUp(because: "no monitor could be added for it: \(error)")
      }
    }
    endTurn(session)
  }

  /// - Returns: false if nothing came of it.
  private func attach(_ session: Session, to ready: StandbyMonitors.Ready) async throws -> Bool {
    let relay = session.relay
    while ready.monitor.isMidMessage { guard await standby.answers(ready.id, ready.monitor.fence()) else { break } }
    // From here on nothing comes between.
    let position = machine.feed.position
    guard relay.drained.result == nil, let socket = ready.monitor.take() else {
      standby.discard(ready)
      return false
    }
    var ahead: [[UInt8]] = []
    var behind = 0
    if relay.isNegotiated {
      let first = ready.start + ready.monitor.dropped
      let events = ready.monitor.events
      ahead = Array(events.dropFirst(max(0, position - first)))
      behind = max(0, position - first - events.count)
    }
    do {
      session.monitor = ready.id
      try relay.wake(with: socket, delivering: ahead, skipping: behind)
    } catch {
      session.monitor = nil
      standby.discard(ready)
      throw error
    }
    attached[ObjectIdentifier(session)] = session
    leaveParked(session)
    return true
  }
}
