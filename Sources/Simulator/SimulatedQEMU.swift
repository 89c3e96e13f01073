import DequeModule
import OrderedCollections
public import QEMUJSON
public import SystemdEvent
public import SystemPackage

/// A QMP server that behaves as QEMU's does, without a machine behind it.
///
/// It has QEMU's monitors, chardevs, stored descriptors, dispatcher and errors, speaks either dialect of monitor hotplug or none, and
/// has things go wrong where it is asked to. All of it lives on `EventLoop.shared` and never waits, so a test can have it in its
/// own process and act between any two of its steps. Its sockets close when it is let go of.
@EventLoopActor
public final class SimulatedQEMU {
  /// How it came to an end.
  public enum End: Sendable, Equatable {
    /// The command `quit`.
    case quit
    /// ``SimulatedQEMU/shutDown(reason:)``.
    case shutDown
    /// A fault, or ``SimulatedQEMU/die()``.
    case died
  }

  let configuration: Configuration
  /// The time that events tell and that delays take.
  public let clock: SimulatedClock
  /// Fulfilled when it has ended: everything is closed.
  public let ended = Promise<End>()
  /// Called with each command as it comes, before anything is done with it.
  public var onCommand: ((ReceivedCommand) -> Void)?

  var monitors: OrderedDictionary<String, Monitor> = [:]
  var chardevs: OrderedDictionary<String, Chardev> = [:]
  /// Objects that are no monitors.
  var otherObjects: [String] = []
  var fdsets = DescriptorSets()
  /// Descriptors that monitors had stored that are no more. QEMU never closes them.
  private(set) var orphanedDescriptors: [HeldDescriptor] = []
  var isRunning: Bool
  /// The machine is not made yet.
  var isInPreconfig: Bool
  var faults: FaultPlan
  private var script: Script
  private(set) lazy var dispatcher = Dispatcher(of: self)
  private lazy var throttle = EventThrottle(clock: clock) { [weak self] in self?.broadcast($0) }
  private let commandTable: OrderedDictionary<String, Command>
  private(set) lazy var schema = Schema.make(Array(commandTable.values), events: Self.events)

  /// The commands that came, the oldest first; no more than ``Configuration/longestLog``.
  public var commands: [ReceivedCommand] { Array(log) }
  private var log: Deque<ReceivedCommand> = []
  /// How many commands have come, over all monitors.
  public private(set) var commandCount = 0
  private var hooks: [Hook] = []
  private var waiters: [(count: Int, promise: Promise<Void>)] = []

  /// The events that its own commands bring about, for the schema.
  private static let events = ["STOP", "RESUME", "RESET", "POWERDOWN", "SHUTDOWN"]

  /// Makes one without monitors.
  public init(_ configuration: Configuration = Configuration(), clock: SimulatedClock = SimulatedClock()) {
    self.configuration = configuration
    self.clock = clock
    isRunning = configuration.isRunning && !configuration.startsInPreconfig
    isInPreconfig = configuration.startsInPreconfig
    script = configuration.script
    faults = FaultPlan(configuration.faults, random: configuration.randomFaults, seed: configuration.seed)
    let commands =
      Command.machine + Command.chardevs + Command.descriptors + Command.objects(configuration.dialect) + Command.qom
      + (configuration.dialect == .monitorAdd ? Command.monitorAdd : []) + Command.outOfBand + Command.simulator
    commandTable = OrderedDictionary(uniqueKeysWithValues: commands.map { ($0.name, $0) })
  }

  isolated deinit { closeEverything(removingFiles: true) }

  // MARK: the command line

  /// Adds a monitor of the command line on a connected socket: `-chardev socket,id=ID,fd=N -mon ID`.
  public func addMonitor(_ id: String = "compat_monitor0", connected socket: consuming OwnedDescriptor, isPretty: Bool = false) {
    let name = "fd:\(socket.raw)"
    add(Chardev(id, connected: socket, name: name, longestUnsent: configuration.longestUnsent), isPretty: isPretty)
  }

  /// Adds a monitor of the command line, and gives the client's end of its socket.
  public func connect(_ id: String = "compat_monitor0", isPretty: Bool = false) throws(SystemdError) -> OwnedDescriptor {
    let pair = try SocketPair()
    addMonitor(id, connected: try pair.theirs.duplicate(), isPretty: isPretty)
    return pair.takeOurs()
  }

  /// Adds a monitor of the command line that clients connect to: `-qmp unix:PATH,server=on,wait=off`.
  ///
  /// - Throws: why the socket cannot be made, in QEMU's words.
  public func addMonitor(_ id: String = "compat_monitor0", listeningAt path: FilePath, isPretty: Bool = false) throws {
    let listener: Listener
    do throws(OpenFailure) { listener = try Listener(at: path.string) } catch { throw ListenFailure(description: error.reason) }
    add(Chardev(id, listening: listener, longestUnsent: configuration.longestUnsent), isPretty: isPretty)
  }

  /// Adds an HMP monitor of the command line that nobody is connected to.
  public func addHumanMonitor(_ id: String) { add(Chardev(null: id), .hmp, isPretty: false) }

  /// A socket that could not be listened on.
  public struct ListenFailure: Error, CustomStringConvertible {
    public let description: String
  }

  private func add(_ chardev: Chardev, _ mode: Monitor.Mode = .qmp, isPretty: Bool) {
    precondition(monitors[chardev.id] == nil && chardevs[chardev.id] == nil, "there is a monitor '\(chardev.id)' already")
    chardevs[chardev.id] = chardev
    insert(Monitor(chardev.id, mode, on: chardev, isDynamic: false, isPretty: isPretty, of: self))
  }

  // MARK: monitors

  func addMonitor(_ id: String, _ options: MonitorOptions) throws(CommandFailure) {
    guard let chardev = chardevs[options.chardev] else { throw CommandFailure("chardev \"\(options.chardev)\" not found") }
    guard chardev.frontend == nil else { throw CommandFailure("chardev '\(options.chardev)' is already in use") }
    let monitor = Monitor(id, options.mode, on: chardev, isDynamic: true, isPretty: options.isPretty, of: self)
    monitor.closeAction = options.closeAction
    insert(monitor)
  }

  private func insert(_ monitor: Monitor) {
    monitors[monitor.id] = monitor
    dispatcher.add(monitor)
    monitor.chardev.attach(monitor)
  }

  /// Removes a monitor. Its chardev stays, with the client on it, which notices nothing before that goes too.
  func remove(_ monitor: Monitor) {
    monitors.removeValue(forKey: monitor.id)
    dispatcher.remove(monitor)
    orphanedDescriptors += monitor.descriptors.values
    monitor.descriptors = [:]
    monitor.die()
  }

  /// Removes a monitor whose client has gone, as `close-action=delete` asks for.
  func removeWithChardev(_ monitor: Monitor) {
    remove(monitor)
    chardevs.removeValue(forKey: monitor.chardev.id)
    monitor.chardev.close()
  }

  // MARK: commands

  var version: Version { configuration.version }

  var versionInfo: QObject {
    [
      "qemu": ["major": .integer(version.major), "minor": .integer(version.minor), "micro": .integer(version.micro)],
      "package": .string(configuration.package),
    ]
  }

  var greeting: QObject { ["QMP": ["version": versionInfo, "capabilities": ["oob"]]] }

  var commandNames: [String] {
    // QEMU lists the youngest first.
    (Array(commandTable.keys) + script.commands.filter { commandTable[$0] == nil }).reversed()
  }

  /// Counts a command that has come, and finds out what is to go wrong with it.
  func register(_ value: QObject, _ text: String, on monitor: Monitor, ownNumber: Int) -> Request {
    commandCount += 1
    var request = Request(monitor, monitor.session, .success(value))
    request.number = commandCount
    request.ownNumber = ownNumber
    request.fault = faults.take(number: commandCount, monitor: monitor.id, ownNumber: ownNumber)
    let name = value["execute"]?.string ?? value["exec-oob"]?.string
    let received = ReceivedCommand(number: commandCount, monitor: monitor.id, name: name, isOutOfBand: request.isOutOfBand, text: text)
    if log.count >= configuration.longestLog { log.removeFirst() }
    log.append(received)
    onCommand?(received)
    for waiter in waiters.filter({ $0.count <= commandCount }) { waiter.promise.fulfil() }
    waiters.removeAll { $0.count <= commandCount }
    reached(.arrival, request)
    return request
  }

  /// Fulfilled when so many commands have come, over all monitors.
  public func received(_ count: Int) -> Promise<Void> {
    let promise = Promise<Void>()
    if count <= commandCount { promise.fulfil() } else { waiters.append((count, promise)) }
    return promise
  }

  func scripted(_ command: String) -> Script.Reply? { script.next(command) }
  func command(_ name: String) -> Command? { commandTable[name] }

  func requireRoomForObject() throws(CommandFailure) {
    guard monitors.count + chardevs.count + otherObjects.count < configuration.mostObjects else {
      throw CommandFailure("the simulator has no room for more than \(configuration.mostObjects) objects")
    }
  }

  func requireRoomForDescriptor() throws(CommandFailure) {
    let count = monitors.values.reduce(orphanedDescriptors.count + fdsets.count) { $0 + $1.descriptors.count }
    guard count < configuration.mostDescriptors else {
      throw CommandFailure("the simulator has no room for more than \(configuration.mostDescriptors) descriptors")
    }
  }

  // MARK: steps

  /// Calls those who wait for a command to reach this moment.
  func reached(_ moment: Moment, _ request: Request) {
    guard request.number > 0 else { return }
    let matching = hooks.filter { $0.matches(moment, request) }
    guard !matching.isEmpty else { return }
    hooks.removeAll { $0.matches(moment, request) }
    for hook in matching { hook.body() }
  }

  /// Calls `body` when a command reaches a moment, once.
  ///
  /// - Parameter command: the how manieth, from 1; of those of one monitor, if one is named.
  public func at(_ moment: Moment, ofCommand command: Int, on monitor: String? = nil, _ body: @escaping () -> Void) {
    hooks.append(Hook(moment: moment, command: command, monitor: monitor, body: body))
  }

  private struct Hook {
    let moment: Moment
    let command: Int
    let monitor: String?
    let body: () -> Void

    @EventLoopActor
    func matches(_ moment: Moment, _ request: Request) -> Bool {
      guard moment == self.moment else { return false }
      guard let monitor else { return command == request.number }
      return monitor == request.monitor.id && command == request.ownNumber
    }
  }

  // MARK: acting from outside

  /// Has an event of QEMU happen: every negotiated monitor gets it, unless it is of a kind that is throttled and comes too soon.
  public func emit(_ event: String, data: QObject? = nil) {
    let now = clock.now
    var message = QDict([
      ("timestamp", ["seconds": .integer(now.seconds), "microseconds": .integer(now.microseconds)]), ("event", .string(event)),
    ])
    if let data { message["data"] = data }
    throttle.emit(event, data: data, .object(message))
  }

  private func broadcast(_ message: QObject) {
    for monitor in monitors.values where monitor.isNegotiated { monitor.send(message) }
  }

  /// Adds a fault. Counting goes on from ``commandCount``: to have the next command fail, give `commandCount + 1`.
  public func inject(_ fault: Fault) { faults.add(fault) }

  /// Has every in-band command wait that is not being executed yet; out-of-band ones do not.
  public func block() { dispatcher.block() }
  /// Ends ``block()`` and the command `x-simulator-block`.
  public func unblock() { dispatcher.unblock() }

  /// Closes the connection of a monitor's client, as QEMU never does by itself.
  public func closeConnection(of monitor: String) { monitors[monitor]?.chardev.disconnect() }

  /// Ends as a QEMU that got SIGTERM does.
  public func shutDown(reason: String = "host-signal") {
    guard ended.result == nil else { return }
    emit("SHUTDOWN", data: ["guest": false, "reason": .string(reason)])
    end(.shutDown)
  }

  /// Ends as a QEMU that is killed does: everything closes, and the files of sockets stay.
  public func die() { end(.died) }

  func end(_ end: End) {
    guard ended.result == nil else { return }
    dispatcher.stop()
    throttle.stop()
    closeEverything(removingFiles: end != .died)
    ended.fulfil(end)
  }

  private func closeEverything(removingFiles: Bool) {
    for monitor in monitors.values { monitor.die() }
    for chardev in chardevs.values { chardev.close(removingFile: removingFiles) }
    monitors = [:]
    chardevs = [:]
    otherObjects = []
    fdsets.removeAll()
    orphanedDescriptors = []
  }
}
