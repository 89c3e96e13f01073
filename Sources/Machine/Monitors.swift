import Logging
import QMP
import SystemPackage
public import SystemdEvent
import SystemdJSON

/// Adds QMP monitors to the running machine, each on a socket of ours, and removes them.
///
/// The ids of what we make begin with ``prefix``, that what a dead daemon left can be told from what is a user's own. A
/// monitor with an id that its user chose is known by its chardev. Names are kept short: QEMU pays for each byte that it
/// reads.
@EventLoopActor
public final class Monitors {
  /// What the ids of everything that we make in QEMU begin with.
  public nonisolated static let prefix = "qv-"
  /// What the ids of chardevs and objects begin with that belong to devices. No monitor's id does: those are counted in digits and
  /// letters, and the chardevs of chosen ids have ``chosenPrefix``.
  nonisolated static let devicePrefix = prefix + "."
  /// What the ids of chardevs begin with whose monitors have ids that users chose.
  private nonisolated static let chosenPrefix = prefix + "m."

  let control: ControlMonitor
  let logger: Logger
  /// Where the control monitor is, if it is one of the command line's that listens.
  let controlSocket: FilePath?
  let strayPatience: Duration
  /// How many ids there have been.
  var counter = 0
  /// Fulfilled when what a dead daemon left is gone.
  var strayRemoval: Promise<Void>?
  /// Of the monitors that ``add(_:pretty:)`` made, by their ids, until they are removed.
  private var ends: [String: MonitorEnd] = [:]
  private var asked: (dialect: MonitorDialect?, existing: Set<String>)?

  /// - Parameter strayPatience: how long strays are watched before they are touched.
  init(control: ControlMonitor, controlSocket: FilePath? = nil, strayPatience: Duration = .seconds(1), logger: Logger) {
    self.strayPatience = strayPatience
    self.control = control
    self.controlSocket = controlSocket
    self.logger = logger
  }

  /// The id of the chardev that ``add(_:pretty:)`` makes for a monitor, which is also the name of its descriptor.
  public nonisolated static func chardev(of id: String) -> String { id.hasPrefix(prefix) ? id : chosenPrefix + id }
  /// The id of the monitor that such a chardev was made for.
  nonisolated static func monitor(of chardev: String) -> String {
    chardev.hasPrefix(chosenPrefix) ? String(chardev.dropFirst(chosenPrefix.count)) : chardev
  }

  // MARK: adding

  /// How much may wait in the kernel for QEMU, in bytes. QEMU executes all of it before the monitor can be removed, and takes
  /// milliseconds for the more costly commands.
  private static let sendBuffer: CInt = 4096
  /// How many ids are left out when one of them is another daemon's: so many that the two do not meet again soon, and so few that ids
  /// stay short.
  private static let leap = 1000...40_000

  /// Adds a monitor on a socket of ours. When it returns, the greeting is on its way. When it throws, nothing of it is left in
  /// QEMU, or nothing will be once QEMU answers again.
  ///
  /// - Parameters:
  ///   - chosen: its id; nil takes the next of our own.
  ///   - pretty: whether QEMU breaks and indents what it prints.
  /// - Throws: ``MachineError/notSupported(_:)`` if this QEMU has no monitors that can be added; ``MachineError/monitor(_:)``
  ///   for an id that is taken; ``MachineError/qmp(_:)`` with QEMU's words otherwise.
  public func add(_ chosen: String? = nil, pretty: Bool = false) async throws(MachineError) -> HotpluggedMonitor {
    let strayRemoval = strayRemoval
    do {
      return try await hotplug(chosen ?? nextID(), pretty)
    } catch .monitor(.exists) where chosen == nil {
      // Another daemon at the same QEMU counts as we do: we go on where it hardly is.
      counter += Int.random(in: Self.leap)
      return try await hotplug(nextID(), pretty)
    } catch .monitor(.exists) where strayRemoval != nil {
      // Most likely it is its user who wants it back, after the daemon has died.
      await strayRemoval?.value
      return try await hotplug(chosen ?? nextID(), pretty)
    }
  }

  private func hotplug(_ id: String, _ pretty: Bool) async throws(MachineError) -> HotpluggedMonitor {
    let dialect = try await dialect()
    let chardev = Self.chardev(of: id)
    let pair: SocketPair
    do { pair = try SocketPair() } catch { throw .system(error) }
    let end: MonitorEnd
    do { end = try MonitorEnd(of: pair.ours) } catch { throw .system(error) }
    let results = await control.pipeline(
      Self.chardev(chardev, descriptor: pair.theirs.raw) + [dialect.add(id, chardev: chardev, pretty: pretty)])
    // Our copy of QEMU's end would hide QEMU's end of file.
    let socket = pair.takeOurs()
    socket.limitSendBuffer(to: Self.sendBuffer)
    let failures = results.map(\.failure)
    guard let failure = failures.lazy.compactMap({ $0 }).first else {
      ends[id] = end
      return HotpluggedMonitor(id: id, socket: socket)
    }
    if failures.contains(where: { $0?.isUncertain == true }) {
      // Whatever becomes of it in QEMU must not meet a closed socket before it is removed.
      let raw = socket.take()
      startTask {
        let socket = OwnedDescriptor(owning: raw)
        await self.control.recovered()
        await self.discard(id)
        withExtendedLifetime(socket) {}
      }
    } else {
      await takeBack(id, dialect, failures)
    }
    throw Self.error(failure, id: id, chardev: chardev)
  }

  /// Adds a monitor on a chardev that is there already, and stays when the monitor goes.
  ///
  /// - Throws: as ``add(_:pretty:)``, and for a chardev that does not exist or is in use.
  public func add(_ id: String, onto chardev: String, pretty: Bool) async throws(MachineError) {
    let dialect = try await dialect()
    let command = dialect.add(id, chardev: chardev, pretty: pretty)
    do throws(QMPError) {
      try await control.execute(command.name, command.arguments)
    } catch {
      if error.isUncertain {
        startTask {
          await self.control.recovered()
          _ = await self.control.pipeline([dialect.remove(id)])
        }
      }
      throw Self.error(error, id: id, chardev: chardev)
    }
  }

  private func nextID() -> String {
    counter += 1
    return Self.prefix + String(counter, radix: 36)
  }

  /// A chardev on a passed descriptor, as two commands. The descriptor stays the caller's.
  private static func chardev(_ id: String, descriptor: CInt) -> [QMPCommand] {
    let id = JSONVariant.string(id)
    let address = JSONVariant.object(["type": .string("fd"), "data": .object(["str": id])])
    let backend = JSONVariant.object(["type": .string("socket"), "data": .object(["addr": address, "server": .boolean(false)])])
    return [
      QMPCommand("getfd", .object(["fdname": id]), descriptors: [descriptor]),
      QMPCommand("chardev-add", .object(["id": id, "backend": backend])),
    ]
  }

  /// Removes what the commands of a failed hotplug made, in reverse order, and nothing else: an id that was taken is
  /// somebody's.
  private func takeBack(_ id: String, _ dialect: MonitorDialect, _ failures: [QMPError?]) async {
    let chardev = JSONVariant.string(Self.chardev(of: id))
    if failures[2] == nil { await undo(dialect.remove(id)) }
    if failures[1] == nil { await undo(QMPCommand("chardev-remove", .object(["id": chardev]))) }
    // chardev-add consumes the descriptor, unless it fails.
    if failures[0] == nil, failures[1] != nil { await undo(QMPCommand("closefd", .object(["fdname": chardev]))) }
  }

  private func undo(_ command: QMPCommand) async {
    do {
      try await control.execute(command.name, command.arguments)
    } catch {
      logger.warning("could not take back a half-made monitor: \(error)")
    }
  }

  /// What QEMU says of a taken or unknown id, in words that callers can tell apart. QEMU has one class for all of it, so its
  /// texts have to do; one that is not known is passed on as it is.
  private static func error(_ error: QMPError, id: String, chardev: String) -> MachineError {
    guard case .execute(let command, _, let desc) = error else { return .qmp(error) }
    if desc.contains("duplicate property") || desc.contains("already exists") { return .monitor(.exists(id: id)) }
    if desc.contains("already in use") { return .monitor(.chardevInUse(chardev)) }
    if command != "chardev-add", desc.hasPrefix("chardev"), desc.contains("not found") { return .monitor(.noSuchChardev(chardev)) }
    return .qmp(error)
  }

  // MARK: removing

  /// Removes a monitor and the chardev that was made for it, and waits for that as long as it takes. QEMU closes its end of
  /// the socket.
  ///
  /// The monitor must be drained: with a command under way on it, QEMU 11.1 can crash. And QEMU answers the drain's last command
  /// a moment before it is done with it: what it then schedules for its monitor thread must have run before the monitor goes.
  /// It takes one command of ours at a time, so a first one that does nothing is a fence: the deletion is not even read before. The
  /// same fence is behind what it does when it has closed its end; see ``MonitorEnd``.
  ///
  /// - Parameter keepsChardev: the chardev was not made for this monitor, and stays.
  public func remove(_ id: String, keepsChardev: Bool = false) async throws(MachineError) {
    let dialect = try await dialect()
    // Held until the monitor is gone.
    let end = ends.removeValue(forKey: id)
    defer { withExtendedLifetime(end) {} }
    await end?.disconnect()
    var commands = [QMPCommand("query-name"), dialect.remove(id)]
    if !keepsChardev { commands.append(QMPCommand("chardev-remove", .object(["id": .string(Self.chardev(of: id))]))) }
    var tooEarly = 0
    var isRepeated = false
    while true {
      let failures = await control.pipeline(commands).compactMap(\.failure)
      // Where one got no reply, the others' replies may not be theirs.
      switch failures.contains(.timedOut) ? .timedOut : failures.first {
      case nil: return
      case let failure? where failure == .timedOut || (failure == .disconnected && control.lost.result == nil):
        await control.recovered()
        isRepeated = true
      case .unreadableReply where !isRepeated: isRepeated = true
      case .execute(_, _, let desc) where desc.contains("still initializing") && tooEarly < 100:
        // QEMU sets a monitor up in its other thread; one that was added a moment ago may still be at it.
        tooEarly += 1
      case .execute(_, _, let desc) where desc.contains("not found") && isRepeated:
        // The first time did it after all.
        return
      case let failure?: throw .qmp(failure)
      }
    }
  }

  /// Takes over a monitor that the run of the daemon before has added.
  ///
  /// - Parameter socket: another descriptor of our end.
  public func adopt(_ id: String, end socket: consuming OwnedDescriptor) { ends[id] = MonitorEnd(owning: socket) }

  /// Removes what there is of a monitor that nobody has any more.
  func discard(_ id: String) async {
    ends[id] = nil
    guard let dialect = try? await dialect() else { return }
    let chardev = JSONVariant.string(Self.chardev(of: id))
    // Which of them is left is not known, and errors say no more than that.
    _ = await control.pipeline([
      dialect.remove(id), QMPCommand("chardev-remove", .object(["id": chardev])), QMPCommand("closefd", .object(["fdname": chardev])),
    ])
  }

  // MARK: what there is

  /// Every monitor of the machine, in QEMU's order.
  ///
  /// - Throws: ``MachineError/notSupported(_:)`` for a QEMU that cannot tell: one that cannot add monitors.
  public func list() async throws(MachineError) -> [MonitorDescription] {
    let dialect = try await dialect()
    do throws(QMPError) {
      var monitors = try await dialect.list(control, existing: asked?.existing ?? [])
      var chardevs: [String: ChardevDescription] = [:]
      for chardev in try await listChardevs() { chardevs[chardev.id] = chardev }
      for index in monitors.indices {
        let chardev = monitors[index].chardev.flatMap { chardevs[$0] }
        monitors[index].isConnected = chardev.map { !$0.isDisconnected }
        let isControlSocket = controlSocket != nil && chardev?.listensAt == controlSocket
        monitors[index].isControl = control.ids.contains(monitors[index].id) || isControlSocket
        // What a daemon before us added was not there when QEMU began.
        if monitors[index].chardev?.hasPrefix(Self.prefix) == true, !monitors[index].isControl { monitors[index].isDynamic = true }
      }
      return monitors
    } catch {
      throw .qmp(error)
    }
  }

  /// Where a QEMU that cannot add monitors listens with ones that nobody is connected to. Its `-qmp` options, most likely; what it serves
  /// there shows when it greets. A relative path is relative to a folder of QEMU's.
  func findSpareSockets() async throws(QMPError) -> [FilePath] {
    guard try await knownDialect() == nil else { return [] }
    return try await listChardevs().compactMap { chardev in
      guard chardev.id.hasPrefix("compat_monitor"), chardev.isDisconnected, chardev.listensAt != controlSocket else { return nil }
      return chardev.listensAt.flatMap { $0.isAbsolute ? $0 : nil }
    }
  }

  /// The monitor of that id, if it may be removed.
  ///
  /// - Throws: ``MachineError/monitor(_:)`` with the reason if not. The rules are the same for every QEMU.
  public func removable(_ id: String) async throws(MachineError) -> MonitorDescription {
    guard let monitor = try await list().first(where: { $0.id == id }) else { throw .monitor(.noSuchMonitor(id: id)) }
    if monitor.isControl { throw .monitor(.isControlMonitor(id: id)) }
    if monitor.mode == .hmp { throw .monitor(.notQMP(id: id)) }
    if !monitor.isDynamic { throw .monitor(.notDynamic(id: id)) }
    return monitor
  }

  func listChardevs() async throws(QMPError) -> [ChardevDescription] {
    try await control.execute("query-chardev").elements?.compactMap(ChardevDescription.init) ?? []
  }

  /// The dialect, asked for once.
  private func dialect() async throws(MachineError) -> MonitorDialect {
    do {
      if let dialect = try await knownDialect() { return dialect }
    } catch {
      throw .qmp(error)
    }
    throw .notSupported("this QEMU cannot add monitors while it runs (it has no monitor-qmp objects; QEMU 11.1 has)")
  }

  func knownDialect() async throws(QMPError) -> MonitorDialect? {
    if let asked { return asked.dialect }
    let answer = try await MonitorDialect.ask(control)
    // Others may have asked meanwhile, and added monitors since. A lack is not remembered: it is rare, and cheap to ask for again.
    if asked == nil, answer.dialect != nil { asked = answer }
    return asked?.dialect
  }

  /// The ids of the monitors that were there when this daemon came, if QEMU does not say so itself.
  var existing: Set<String> { asked?.existing ?? [] }

  /// Starts counting behind what other daemons, dead or alive, have made in this QEMU.
  func continueNumbering() async throws(QMPError) {
    for id in try await findOurs().ids {
      // Longer ones are not from counting.
      let suffix = id.dropFirst(Self.prefix.count)
      if suffix.count <= 6, let number = Int(suffix, radix: 36) { counter = max(counter, number) }
    }
  }
}

/// A monitor that was added, and our end of its socket.
public struct HotpluggedMonitor: ~Copyable {
  public let id: String
  public let socket: OwnedDescriptor

  /// The socket alone.
  public consuming func takeSocket() -> OwnedDescriptor { socket }
}

extension Result {
  /// The error, if it is one.
  var failure: Failure? { if case .failure(let failure) = self { failure } else { nil } }
}
