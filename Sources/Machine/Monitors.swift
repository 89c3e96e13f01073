import Logging
import QMP
public import SystemdEvent
import SystemdJSON

/// Adds QMP monitors to the running machine, each on a socket of ours, and removes them.
///
/// Everything made in QEMU has an id that begins with ``prefix``. A monitor's chardev, its object and the name of its
/// descriptor are all called the same. They are kept short: QEMU pays for each byte that it reads.
@EventLoopActor
public final class Monitors {
  /// What the ids of everything that we make in QEMU begin with.
  public nonisolated static let prefix = "qv-"

  private let control: ControlMonitor
  private let logger: Logger
  private var counter = 0
  private var isSupported: Bool?

  init(control: ControlMonitor, logger: Logger) {
    self.control = control
    self.logger = logger
  }

  /// How much may wait in the kernel for QEMU, in bytes. QEMU executes all of it before the monitor can be removed, and takes
  /// milliseconds for the more costly commands.
  private static let sendBuffer: CInt = 4096

  /// Adds a monitor. When it returns, the greeting is on its way. When it throws, nothing of it is left in QEMU, or nothing
  /// will be once QEMU answers again.
  ///
  /// - Throws: ``MachineError/notSupported(_:)`` if this QEMU has no monitors that can be added; ``MachineError/qmp(_:)``
  ///   with QEMU's words otherwise.
  public func add() async throws(MachineError) -> AddedMonitor {
    try await requireSupport()
    counter += 1
    let id = Self.prefix + String(counter, radix: 36)
    let pair: SocketPair
    do { pair = try SocketPair() } catch { throw .system(error) }
    let results = await control.pipeline(Self.hotplug(id, descriptor: pair.theirs.raw))
    // Our copy of QEMU's end would hide QEMU's end of file.
    let socket = pair.takeOurs()
    socket.limitSendBuffer(to: Self.sendBuffer)
    let failures = results.map(\.failure)
    guard let failure = failures.lazy.compactMap({ $0 }).first else { return AddedMonitor(id: id, socket: socket) }
    if failures.contains(where: { $0 == .timedOut || $0 == .disconnected }) {
      // Whatever becomes of it in QEMU must not meet a closed socket before it is removed.
      let raw = socket.take()
      startTask {
        let socket = OwnedDescriptor(owning: raw)
        await self.control.recovered()
        await self.discard(id)
        withExtendedLifetime(socket) {}
      }
    } else {
      await takeBack(id, failures)
    }
    throw .qmp(failure)
  }

  /// The three commands, for one write. The descriptor stays the caller's.
  private static func hotplug(_ id: String, descriptor: CInt) -> [QMPCommand] {
    let id = JSONVariant.string(id)
    let address = JSONVariant.object(["type": .string("fd"), "data": .object(["str": id])])
    let backend = JSONVariant.object(["type": .string("socket"), "data": .object(["addr": address, "server": .boolean(false)])])
    return [
      QMPCommand("getfd", .object(["fdname": id]), descriptors: [descriptor]),
      QMPCommand("chardev-add", .object(["id": id, "backend": backend])),
      QMPCommand("object-add", .object(["qom-type": .string("monitor-qmp"), "id": id, "chardev": id])),
    ]
  }

  /// Removes what the commands of a failed hotplug made, in reverse order.
  private func takeBack(_ id: String, _ failures: [QMPError?]) async {
    let id = JSONVariant.string(id)
    if failures[2] == nil { await undo("object-del", .object(["id": id])) }
    if failures[1] == nil { await undo("chardev-remove", .object(["id": id])) }
    // chardev-add consumes the descriptor, unless it fails.
    if failures[0] == nil, failures[1] != nil { await undo("closefd", .object(["fdname": id])) }
  }

  private func undo(_ command: String, _ arguments: JSONVariant) async {
    do {
      try await control.execute(command, arguments)
    } catch {
      logger.warning("could not take back a half-made monitor: \(error)")
    }
  }

  /// Removes a monitor and its chardev, and waits for that as long as it takes. QEMU closes its end of the socket.
  ///
  /// The monitor must be drained: with a command under way on it, QEMU 11.1 can crash. And QEMU answers the drain's last command
  /// a moment before it is done with it: what it then schedules for its monitor thread must have run before the monitor goes.
  /// It takes one command of ours at a time, so a first one that does nothing is a fence: the deletion is not even read before.
  public func remove(_ id: String) async throws(MachineError) {
    let arguments = JSONVariant.object(["id": .string(id)])
    var tooEarly = 0
    var isRepeated = false
    while true {
      let results = await control.pipeline([
        QMPCommand("query-name"), QMPCommand("object-del", arguments), QMPCommand("chardev-remove", arguments),
      ])
      switch results.lazy.compactMap(\.failure).first {
      case nil: return
      case let failure? where failure == .timedOut || (failure == .disconnected && control.lost.result == nil):
        await control.recovered()
        isRepeated = true
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

  /// Removes what there is of a monitor that nobody has any more.
  func discard(_ id: String) async {
    let arguments = JSONVariant.object(["id": .string(id)])
    // Which of them is left is not known, and errors say no more than that.
    _ = await control.pipeline([
      QMPCommand("object-del", arguments), QMPCommand("chardev-remove", arguments),
      QMPCommand("closefd", .object(["fdname": .string(id)])),
    ])
  }

  /// Removes the rest of a monitor whose object somebody else has deleted: QEMU says nothing on it any more, not even its end,
  /// before the chardev goes too.
  func discardIfDeleted(_ id: String) async {
    guard let found = try? await find(), !found.objects.contains(id), found.chardevs[id] != nil else { return }
    await discard(id)
  }

  /// Asks QEMU, once, for the type that the monitors are objects of.
  private func requireSupport() async throws(MachineError) {
    if isSupported == nil {
      do {
        let types = try await control.execute("qom-list-types", .object(["implements": .string("monitor-qmp")]))
        isSupported = types.elements?.isEmpty == false
      } catch {
        throw .qmp(error)
      }
    }
    if isSupported == false {
      throw .notSupported("this QEMU cannot add monitors while it runs (it has no monitor-qmp objects; QEMU 11.1 has)")
    }
  }

  // MARK: what others left

  /// What is in QEMU under our prefix.
  private struct Found {
    var objects: Set<String> = []
    /// Chardevs, and whether they have lost their other end.
    var chardevs: [String: Bool] = [:]
    var ids: Set<String> { objects.union(chardevs.keys) }
    /// Those that nobody is at the other end of.
    var strays: Set<String> { Set(chardevs.filter(\.value).keys).union(objects.subtracting(chardevs.keys)) }
  }

  private func find() async throws(QMPError) -> Found {
    let results = await control.pipeline([
      QMPCommand("qom-list", .object(["path": .string("/objects")])), QMPCommand("query-chardev"),
    ])
    var found = Found()
    for object in try results[0].get().elements ?? [] {
      if let id = object["name"]?.string, id.hasPrefix(Self.prefix) { found.objects.insert(id) }
    }
    for chardev in try results[1].get().elements ?? [] {
      guard let id = chardev["label"]?.string, id.hasPrefix(Self.prefix) else { continue }
      // A chardev without a monitor does not notice that its other end has gone.
      let isUnused = chardev["frontend-open"]?.boolean == false
      found.chardevs[id] = isUnused || chardev["filename"]?.string?.hasPrefix("disconnected:") == true
    }
    return found
  }

  /// Starts counting behind what other daemons, dead or alive, have made in this QEMU.
  func continueNumbering() async throws(QMPError) {
    for id in try await find().ids {
      // Longer ones are not from counting.
      let suffix = id.dropFirst(Self.prefix.count)
      if suffix.count <= 6, let number = Int(suffix, radix: 36) { counter = max(counter, number) }
    }
  }

  /// How long strays are watched before they are touched.
  private static let strayPatience = Duration.seconds(1)

  /// Removes what daemons that are dead left in QEMU: monitors whose other end is gone, and chardevs that never got one.
  ///
  /// What another daemon has in use is connected, and stays. So does what was only just left: a command may be under way on
  /// it. QEMU executes in-band commands one at a time, so once one of ours has been answered after the monitor was seen
  /// without its other end, which drops what waits on it, nothing of it is under way.
  func removeStrays() async throws(QMPError) {
    let before = try await find().strays
    guard !before.isEmpty else { return }
    let patience = Promise<Void>()
    let timer = try? EventSource.timer(after: Self.strayPatience) { patience.fulfil() }
    if timer != nil { await patience.value }
    let strays = try await find().strays.intersection(before)
    for id in strays.sorted() {
      let arguments = JSONVariant.object(["id": .string(id)])
      for command in ["query-status", "object-del", "chardev-remove"] {
        do {
          try await control.execute(command, command == "query-status" ? nil : arguments)
        } catch .execute(_, _, let desc) {
          // One that was only half made has not both.
          if !desc.contains("not found") { logger.warning("could not remove the stray monitor \(id): \(desc)") }
        }
      }
    }
    logger.notice("removed \(strays.count) monitors that a daemon before left behind")
  }
}

/// A monitor that was added, and our end of its socket.
public struct AddedMonitor: ~Copyable {
  public let id: String
  public let socket: OwnedDescriptor

  /// The socket alone.
  public consuming func takeSocket() -> OwnedDescriptor { socket }
}

extension Result {
  /// The error, if it is one.
  var failure: Failure? { if case .failure(let failure) = self { failure } else { nil } }
}
