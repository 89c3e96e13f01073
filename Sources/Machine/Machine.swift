import Glibc
public import Logging
public import QMP
public import SystemPackage
public import SystemdEvent
import SystemdJSON

/// One virtual machine: a QEMU and the control monitor, which nobody else uses.
@EventLoopActor
public final class Machine {
  public let name: MachineName
  /// Adds and removes monitors of this machine.
  public let monitors: Monitors
  /// Adds drives to this machine and removes them.
  public let storage: Storage
  /// The QEMU that was started here; nil if it ran already.
  public let process: ChildProcess?
  /// Fulfilled when QEMU can be reached no more. Calls in flight have failed by then.
  public var disconnected: Promise<QMPError> { control.lost }
  /// What QEMU said of itself.
  public let greeting: Greeting

  /// Whether QEMU goes on when this process ends, whatever ends it.
  public internal(set) var outlivesDaemon = true
  /// Whether the run of the daemon before had drives, which this one has not looked for.
  var hasUnknownDrives = false
  /// The guest's AF_VSOCK address, if it was started here with one.
  public internal(set) var vsockAddress: UInt32?
  /// The folder of the host that is the guest's root, if it was started here with one.
  public internal(set) var rootDirectory: FilePath?

  /// The programs that serve its devices; they end when QEMU does.
  let programs: [DeviceProgram]
  /// The sockets of QMP servers that this machine's QEMU has beside ours and that nobody used, for sessions that share one.
  var spareSockets: [FilePath] = []
  /// The machine's events, numbered.
  public let feed = EventFeed()
  let control: ControlMonitor
  let outOfBand: OutOfBandMonitor
  private let statusQuery: SharedQuery<Result<Status, MachineError>>
  let logger: Logger
  private var spareEvents: SpareEvents?
  private var spareInTheMaking: Promise<Void>?
  private var wantsSpare = false
  private let subscribers = Subscribers<QMPEvent>()

  init(
    name: MachineName, client: QMPClient, clientID: String?, clientSocket: FilePath?, responseLimit: Duration, greeting: Greeting,
    process: ChildProcess?, programs: [DeviceProgram] = [], logger: Logger
  ) {
    self.name = name
    control = ControlMonitor(client, id: clientID, responseLimit: responseLimit, logger: logger)
    statusQuery = SharedQuery { [control] in await Self.queryStatus(control) }
    self.greeting = greeting
    self.process = process
    self.programs = programs
    self.logger = logger
    monitors = Monitors(control: control, controlSocket: clientSocket, logger: logger)
    storage = Storage(control: control, logger: logger)
    outOfBand = OutOfBandMonitor(control: control, monitors: monitors, responseLimit: responseLimit, logger: logger)
    control.onEvent = { [weak self] event in self?.publish(event) }
    for program in programs { watch(program) }
    control.onTakeOver = { [weak self] old in
      self?.catchUp()
      startTask {
        // What a session has left of the monitor before.
        if let old { await self?.monitors.discard(old) }
        await self?.keepSpareMonitor()
        await self?.storage.resynchronize()
      }
    }
  }

  /// How long after a program of a device QEMU may end, for that to be why the program has.
  private static let programFarewell = Duration.seconds(1)

  /// Tells of a program that ends although QEMU goes on: the guest then has a device that does nothing.
  private func watch(_ program: DeviceProgram) {
    startTask { [logger, control] in
      let status = await program.process.ended.value
      guard await control.lost.value(within: Self.programFarewell) == nil else { return }
      let words = program.process.lastWords.suffix(3)
      logger.error(
        "\(program.name) \(status), and QEMU goes on without it (\(program.option))\(words.isEmpty ? "" : ": \(words.joined(separator: "; "))")"
      )
    }
  }

  // MARK: making one

  /// Takes the monitor at `socket` of a QEMU that runs already as the control monitor.
  ///
  /// - Parameter adopts: whether QEMU's process is this machine's from now on, as if it had been started here.
  public static func attach(
    name: MachineName, to socket: FilePath, responseLimit: Duration = .seconds(10), adopts: Bool = false, logger: Logger,
    cancelled: Promise<Void> = Promise()
  ) async throws(MachineError) -> Machine {
    do throws(QMPError) {
      let control = try QMPClient(connectingTo: socket)
      // As QEMU spells it, which may be relative to another folder than ours.
      let address = control.serverPath
      let canceller = cancelled.whenFulfilled { control.close() }
      defer { cancelled.forget(canceller) }
      let greeting = try await control.negotiate(within: .seconds(5))
      let machine = Machine(
        name: name, client: control, clientID: nil, clientSocket: address, responseLimit: responseLimit, greeting: greeting,
        process: adopts ? control.serverProcess.flatMap { adopt($0, logger) } : nil, logger: logger)
      try await machine.monitors.continueNumbering()
      machine.spareSockets = try await machine.monitors.findSpareSockets()
      startTask {
        do { try await machine.monitors.removeStrays() } catch { logger.warning("could not remove what another daemon left: \(error)") }
      }
      logger.info("attached to QEMU \(greeting.version) at \(socket)")
      return machine
    } catch {
      throw .qmp(error)
    }
  }

  /// The process that made the socket, which a QEMU does for itself when it is told so on its command line.
  private static func adopt(_ process: Int32, _ logger: Logger) -> ChildProcess? {
    do {
      return try ChildProcess(adopting: process, ProcessDescriptor(of: process), printed: nil) { _ in }
    } catch {
      logger.warning("the process \(process) cannot be watched: \(error)")
      return nil
    }
  }

  // MARK: what it can be told

  /// The run state.
  public struct Status: Sendable, Equatable {
    /// Whether the virtual CPUs run.
    public let isRunning: Bool
    /// QEMU's name for the state.
    public let name: String
  }

  /// Asks for the run state. It is `unresponsive` when QEMU does not answer.
  ///
  /// QEMU, which reads commands slowly, is asked once for all who call while it is at an earlier query.
  public func status() async throws(MachineError) -> Status { try await statusQuery.answer().get() }

  private static func queryStatus(_ control: ControlMonitor) async -> Result<Status, MachineError> {
    do throws(QMPError) {
      let reply = try await control.execute("query-status")
      return .success(Status(isRunning: reply["running"]?.boolean ?? false, name: reply["status"]?.string ?? "unknown"))
    } catch .timedOut {
      return .success(Status(isRunning: false, name: "unresponsive"))
    } catch {
      return .failure(.qmp(error))
    }
  }

  /// Stops the virtual CPUs.
  public func pause() async throws(MachineError) { try await execute("stop") }

  /// Lets the virtual CPUs run.
  public func resume() async throws(MachineError) { try await execute("cont") }

  /// Presses the power button.
  public func powerOff() async throws(MachineError) { try await execute("system_powerdown") }

  /// Presses the reset button.
  public func reset() async throws(MachineError) { try await execute("system_reset") }

  /// Ends QEMU. That it went before it could answer is success too.
  public func terminate() async throws(MachineError) {
    do {
      try await execute("quit")
    } catch .qmp(.disconnected) {}
  }

  @discardableResult
  private func execute(_ command: String) async throws(MachineError) -> JSONVariant {
    do { return try await control.execute(command) } catch { throw .qmp(error) }
  }

  // MARK: the spare monitor

  /// Has a second monitor of ours at hand, for when a session removes the first. Returns when it is there, or could not be made.
  public func keepSpareMonitor() async {
    wantsSpare = true
    if let making = spareInTheMaking { return await making.value }
    guard !control.hasSpare, disconnected.result == nil else { return }
    let making = Promise<Void>()
    spareInTheMaking = making
    await makeSpareMonitor()
    spareInTheMaking = nil
    making.fulfil()
    if !wantsSpare { await dropSpareMonitor() }
  }

  private func makeSpareMonitor() async {
    do {
      let added = try await monitors.add()
      let id = added.id
      let client = try QMPClient(added.takeSocket())
      client.responseLimit = Self.detachLimit
      let events = SpareEvents(of: client, since: feed.position)
      events.onLate = { [weak self] in
        guard let self else { return }
        startTask { _ = await self.fenceFeed() }
      }
      do {
        _ = try await client.negotiate()
      } catch {
        try? await monitors.remove(id)
        throw error
      }
      control.keep(spare: client, id: id)
      spareEvents = events
      startTask { await events.align(with: self) }
    } catch {
      logger.warning("no spare monitor: \(error)")
    }
  }

  /// Removes the second monitor, which costs QEMU time as long as it is there.
  public func dropSpareMonitor() async {
    wantsSpare = false
    if let making = spareInTheMaking { return await making.value }
    guard let spare = control.releaseSpare() else { return }
    do {
      try await monitors.remove(spare.id)
    } catch {
      logger.warning("could not remove the spare monitor: \(error)")
    }
    spare.client.close()
  }

  /// Removes what is left of a session's monitor after QEMU has closed its end, or somebody else has deleted it.
  public func discardMonitor(_ id: String) async {
    if disconnected.result == nil { await monitors.discard(id) }
  }

  /// Waits until QEMU answers on the control monitor, or is lost.
  public func recovered() async { await control.recovered() }

  /// Looks after a monitor on which a command does not come back: if another session has deleted it, its chardev goes too, which
  /// ends the session.
  public func examineMonitor(_ id: String) async { await monitors.discardIfDeleted(id) }

  // MARK: events

  /// Calls `handler` with each event of QEMU from now on, until ``unsubscribe(_:)``.
  ///
  /// - Parameter includingUnreadable: also with those that have nothing but their text.
  public func subscribe(includingUnreadable: Bool = false, _ handler: @escaping (QMPEvent) -> Void) -> Int {
    subscribers.add { if $0.isReadable || includingUnreadable { handler($0) } }
  }

  public func unsubscribe(_ subscription: Int) { subscribers.remove(subscription) }

  /// What the control monitor did not give any more, after the spare one has taken its place.
  private func catchUp() {
    let events = spareEvents?.events(from: feed.position)
    spareEvents = nil
    guard let events else { return feed.mayHaveMissed() }
    for event in events { publish(event) }
  }

  private func publish(_ event: QMPEvent) {
    if event.isReadable {
      logger.debug("event \(event.name)")
    } else {
      logger.warning("an event of QEMU cannot be read and is dropped: \(String(decoding: event.text.prefix(200), as: UTF8.self))")
    }
    spareEvents?.drop(before: feed.position + 1)
    feed.append(event.text)
    // First: whoever is told that a drive has gone may add the next at once.
    if event.isReadable { storage.handle(event) }
    subscribers.publish(event)
  }

  // MARK: its end

  /// How patient ``stop(_:hurry:)`` is.
  public struct StopLimits: Sendable {
    /// For the guest to power off.
    public var powerOff: Duration
    /// For QEMU to quit after that.
    public var quit: Duration
    public init(powerOff: Duration = .seconds(60), quit: Duration = .seconds(5)) {
      self.powerOff = powerOff
      self.quit = quit
    }
  }

  /// Ends the machine: the power button, then `quit`, then SIGKILL, each after the time that the one before was given.
  ///
  /// - Parameter hurry: fulfilled by somebody who does not want to wait for the guest.
  public func stop(_ limits: StopLimits, hurry: Promise<Void>) async {
    if hurry.result == nil, let status = try? await status(), status.isRunning {
      logger.notice("powering off; the guest has \(limits.powerOff)")
      try? await powerOff()
      let isOver = Promise<Void>()
      disconnected.whenFulfilled { _ in isOver.fulfil() }
      hurry.whenFulfilled { isOver.fulfil() }
      _ = await isOver.value(within: limits.powerOff)
    }
    guard disconnected.result == nil else { return }
    logger.notice("telling QEMU to quit")
    startTask { try? await self.terminate() }
    guard await disconnected.value(within: limits.quit) == nil, let process else { return }
    logger.warning("QEMU does not quit: killing it")
    process.signal(SIGKILL)
    _ = await disconnected.value
  }

  /// How QEMU ended, once it cannot be reached any more. One that goes on nevertheless is ended, and so are the programs of its
  /// devices.
  ///
  /// - Returns: nil for a QEMU that was not started here.
  public func processEnd() async -> ExitStatus? {
    guard let process else { return nil }
    let status = await end(of: process, "QEMU cannot be reached and goes on: ending it")
    for program in programs { _ = await end(of: program.process, "QEMU has ended and \(program.name) goes on: ending it") }
    return status
  }

  private func end(of process: ChildProcess, _ warning: String) async -> ExitStatus {
    if let status = await process.ended.value(within: Self.detachLimit) { return status }
    logger.warning("\(warning)")
    process.signal(SIGTERM)
    if let status = await process.ended.value(within: Self.detachLimit) { return status }
    process.signal(SIGKILL)
    return await process.ended.value
  }

  /// How long QEMU may take to remove what is ours, or to end.
  private static let detachLimit = Duration.seconds(5)

  /// Lets go of a machine that goes on without us.
  public func detach() async {
    await endOwnWork(within: Self.detachLimit)
    control.close()
  }

  /// Brings to an end what is under way in QEMU and is no session's: operations on drives, and the monitors that are for this process
  /// alone. Each of the two may take until the limit; what is not over by then goes on.
  func endOwnWork(within limit: Duration) async {
    await storage.idle(within: limit)
    let isClear = Promise<Void>()
    startTask {
      await self.dropSpareMonitor()
      await self.outOfBand.remove()
      isClear.fulfil()
    }
    _ = await isClear.value(within: limit)
  }
}
