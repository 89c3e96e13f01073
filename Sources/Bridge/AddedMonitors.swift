public import Logging
public import Machine
import QMP
import Relay
import SystemPackage
public import SystemdEvent
public import SystemdJSON
import Varlink

/// The monitors that callers have added, each with clients of its own.
///
/// QEMU never sees the clients. What a caller calls a socket that QEMU listens on is one of ours, and each client of it a
/// session: hotplugged, relayed, drained and removed like those that come by an upgrade. A client that hangs up in the middle
/// of a command could end QEMU otherwise.
@EventLoopActor
public final class AddedMonitors {
  /// What happened to a monitor; `io.qmpvarlink.Monitors.Change`.
  enum Change: String {
    case current, added, changed, removed
  }

  private let machine: Machine
  private let sessions: Sessions
  private let limit: Int
  private let logger: Logger
  private let authorisation: Authorisation?
  /// In the order in which they were added.
  private var all: [AddedMonitor] = []
  /// Sessions that have no monitor at present.
  /// The monitors of sessions that watchers were told of, by the sessions' ids.
  private var announced: [String: String] = [:]
  /// The ids of those that are being added.
  private var adding: Set<String> = []
  private let watchers = Subscribers<(Change, JSONVariant)>()

  /// - Parameter limit: how many there may be. Those that wait for clients cost QEMU time for every command, too.
  public init(machine: Machine, sessions: Sessions, limit: Int, authorisation: Authorisation? = nil, logger: Logger) {
    self.authorisation = authorisation
    self.machine = machine
    self.sessions = sessions
    self.limit = limit
    self.logger = logger
    machine.disconnected.whenFulfilled { [weak self] _ in self?.letGo() }
    _ = sessions.watch { [weak self] change, session in self?.sessionChanged(change, session) }
  }

  // MARK: adding

  /// Adds a monitor; see the interface's `Add`. Its id has been checked for what QEMU takes.
  func add(_ id: String, _ clients: AddedMonitor.Clients, isPretty: Bool) async throws {
    // From here on the monitor owns what its clients come by, and lets go of it if it comes to nothing.
    let monitor = AddedMonitor(id, isPretty: isPretty, clients: clients)
    do {
      if all.contains(where: { $0.id == id }) || adding.contains(id) { throw MachineError.monitor(.exists(id: id)) }
      guard all.count + adding.count < limit else {
        throw VarlinkError("io.qmpvarlink.Monitors.TooManyMonitors", .object(["limit": .integer(limit)]))
      }
      adding.insert(id)
      defer { adding.remove(id) }
      try await hotplug(monitor)
    } catch {
      monitor.beginRemoval(because: "it could not be added")
      throw error
    }
    all.append(monitor)
    logger.info("monitor added", metadata: ["monitor": "\(id)"])
    publish(.added, monitor.description)
    if monitor.foreignChardev == nil { startTask { await self.serve(monitor) } }
  }

  private func hotplug(_ monitor: AddedMonitor) async throws(MachineError) {
    if let chardev = monitor.foreignChardev {
      try await machine.monitors.add(monitor.id, onto: chardev, pretty: monitor.isPretty)
    } else {
      monitor.socket = try await machine.monitors.add(monitor.id, pretty: monitor.isPretty).takeSocket()
    }
  }

  /// Serves a monitor's clients, one after the other, until it is to be removed, and removes it.
  ///
  /// - Parameter first: the session that it has already.
  private func serve(_ monitor: AddedMonitor, _ first: Session? = nil) async {
    do {
      var session = first
      while true {
        if let session {
          // A monitor that QEMU closed was removed by somebody else.
          guard [.drained, .parked].contains(await monitor.serve(session)), monitor.takesFurtherClients else { break }
          try await hotplug(monitor)
          publish(.changed, monitor.description)
        }
        guard let client = await nextClient(monitor), let socket = monitor.socket.take() else { break }
        session = try await sessions.open(monitor.id, client: client, monitor: socket)
      }
    } catch {
      logger.error("the monitor can have no further clients: \(error)", metadata: ["monitor": "\(monitor.id)"])
      await machine.discardMonitor(monitor.id)
    }
    monitor.beginRemoval(because: "the monitor is removed")
    // One that waits for a client is at rest: nothing has ever been written to it.
    if monitor.socket != nil { await sessions.removeMonitor(monitor.id, logger) }
    monitor.socket = nil
    forget(monitor)
  }

  /// The next client that may speak on the monitor. A descriptor that came with the call was who called's to give.
  private func nextClient(_ monitor: AddedMonitor) async -> OwnedDescriptor? {
    while let client = await monitor.nextClient() {
      guard let authorisation, monitor.takesFurtherClients else { return client }
      if authorisation.admits(client, to: monitor.id) { return client }
    }
    return nil
  }

  private func forget(_ monitor: AddedMonitor) {
    all.removeAll { $0 === monitor }
    logger.info("monitor removed", metadata: ["monitor": "\(monitor.id)"])
    publish(.removed, monitor.description)
    monitor.endRemoval()
  }

  // MARK: removing

  /// Removes a monitor, whoever added it, and returns when it is gone; see the interface's `Remove`.
  func remove(_ id: String) async throws(MachineError) {
    let reason = "the monitor is removed"
    if let monitor = all.first(where: { $0.id == id }) {
      if !monitor.isRemoving {
        monitor.beginRemoval(because: reason)
        publish(.changed, monitor.description)
        if monitor.foreignChardev != nil { startTask { await self.removeFromChardev(monitor) } }
      }
      return try await monitor.removal.value.get()
    }
    if let session = sessions.session(onMonitor: id) {
      session.relay.stop(because: reason)
      _ = await session.ended.value
      return
    }
    let monitor = try await machine.monitors.removable(id)
    try await machine.monitors.remove(id, keepsChardev: monitor.chardev != Monitors.chardev(of: id))
  }

  private func removeFromChardev(_ monitor: AddedMonitor) async {
    do {
      try await machine.monitors.remove(monitor.id, keepsChardev: true)
      forget(monitor)
    } catch .qmp(.execute(_, _, let desc)) where desc.contains("not found") {
      // Somebody else has removed it.
      forget(monitor)
    } catch {
      monitor.giveUpRemoval(error)
      publish(.changed, monitor.description)
    }
  }

  /// Removes all, or, where QEMU cannot be asked any more, lets go of what they have here; at most for `limit`.
  public func stop(within limit: Duration) async {
    let isOver = Promise<Void>()
    startTask {
      for monitor in self.all { startTask { try? await self.remove(monitor.id) } }
      for monitor in self.all { _ = await monitor.removal.value }
      isOver.fulfil()
    }
    _ = await isOver.value(within: limit)
  }

  private func letGo() {
    for monitor in all { monitor.beginRemoval(because: "the machine is gone") }
    all.filter { $0.foreignChardev != nil }.forEach(forget)
  }

  // MARK: another run of the daemon

  /// The monitors as they are, for the next run of the daemon.
  ///
  /// - Throws: ``Handover/Failure`` if one cannot be handed over at this moment.
  public func carried(_ handover: Handover) throws -> JSONVariant {
    guard adding.isEmpty else { throw Handover.Failure("a monitor is being added") }
    return .array(
      try all.map { monitor in
        guard let carried = try monitor.carried(handover, hasSession: sessions.session(monitor.id) != nil) else {
          throw Handover.Failure("the monitor \(monitor.id) is in the middle of something")
        }
        return carried
      })
  }

  /// Goes on with the monitors that the run of the daemon before had, whose sessions are there already.
  public func goOn(with carried: JSONVariant, _ handover: Handover) {
    for carried in carried.elements ?? [] {
      do {
        if let id = carried["id"]?.string, let end = try handover.copy(carried["socket"]) { machine.monitors.adopt(id, end: end) }
        let monitor = try AddedMonitor(carried: carried, handover)
        all.append(monitor)
        guard monitor.foreignChardev == nil else { continue }
        let session = sessions.session(monitor.id)
        startTask { await self.serve(monitor, session) }
      } catch {
        logger.error("a monitor is lost: \(error)", metadata: ["monitor": "\(carried["id"]?.string ?? "?")"])
      }
    }
  }

  // MARK: what there is

  /// All monitors of the machine, as `io.qmpvarlink.Monitors.Monitor`s.
  func list() async throws(MachineError) -> JSONVariant {
    let found = try await machine.monitors.list()
    // QEMU does not have those that are between two clients.
    let between = all.filter { monitor in !found.contains { $0.id == monitor.id } }
    return .array(found.map(description(of:)) + between.map(\.description))
  }

  private func description(of monitor: MonitorDescription) -> JSONVariant {
    if let added = all.first(where: { $0.id == monitor.id }) { return added.description }
    if let session = sessions.session(onMonitor: monitor.id) { return description(of: session, monitor: monitor.id) }
    return .object([
      "id": .string(monitor.id), "mode": .string(monitor.mode.rawValue), "chardev": monitor.chardev.map { .string($0) },
      "dynamic": .boolean(monitor.isDynamic), "control": .boolean(monitor.isControl),
      "connected": monitor.isConnected.map { .boolean($0) }, "negotiated": monitor.isControl ? .boolean(true) : nil,
      "pretty": monitor.isPretty.map { .boolean($0) },
    ])
  }

  private func description(of session: Session, monitor id: String) -> JSONVariant {
    .object([
      "id": .string(id), "mode": .string(MonitorDescription.Mode.qmp.rawValue),
      "chardev": .string(Monitors.chardev(of: id)), "dynamic": .boolean(true), "control": .boolean(false),
      // The monitor of a session that has just been parked is gone.
      "state": .string(session.relay.state == .parked ? "removing" : session.relay.state.rawValue),
      "connected": .boolean(!session.relay.clientIsGone),
      "negotiated": .boolean(session.relay.isNegotiated), "pretty": .boolean(false),
    ])
  }

  // MARK: watching

  /// Calls `handler` with each change from now on, until ``unwatch(_:)``.
  func watch(_ handler: @escaping (Change, JSONVariant) -> Void) -> Int {
    watchers.add { handler($0.0, $0.1) }
  }

  func unwatch(_ watcher: Int) { watchers.remove(watcher) }

  private func publish(_ change: Change, _ monitor: JSONVariant) { watchers.publish((change, monitor)) }

  private func sessionChanged(_ change: Sessions.Change, _ session: Session) {
    if let monitor = all.first(where: { $0.id == session.id }) {
      // What follows its end is published when it is known.
      if change != .closed { publish(.changed, monitor.description) }
    } else if session.isUpgraded, session.place == nil {
      let (before, now) = (announced[session.id], change == .closed || !session.relay.hasMonitor ? nil : session.monitor)
      announced[session.id] = now
      if let before, before != now { publish(.removed, description(of: session, monitor: before)) }
      if let now { publish(now == before ? .changed : .added, description(of: session, monitor: now)) }
    }
  }
}
