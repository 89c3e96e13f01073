import Logging
import QMP
public import SystemdEvent
import SystemdJSON

/// The drives that come and go while the machine runs.
///
/// Each drive has one operation under way at most; different drives do not wait for each other. An operation does what it was asked
/// to, or leaves QEMU as it was: what it has made is noted with the command that takes it back (``UndoList``). It does not depend on
/// whoever asked for it: it runs to its end.
@EventLoopActor
public final class Storage {
  let control: ControlMonitor
  let logger: Logger
  /// By name.
  private var drives: [String: Drive] = [:]
  private var ports = HotplugPorts([])
  private(set) lazy var controller = SCSIController(control: control, storage: self)
  /// The names of drives that were there before us.
  private var immutable: Set<String> = []
  private var inventory: Promise<Result<Void, MachineError>>?
  /// The devices that went while the inventory was taken: replies that came before may still have them.
  private var goneMeanwhile: Set<String> = []
  private var counter = 0
  private var operations = 0
  private var idle: Promise<Void>?

  init(control: ControlMonitor, logger: Logger) {
    self.control = control
    self.logger = logger
  }

  // MARK: ids

  /// What the ids of drives, of files' nodes and of controllers begin with; a number follows.
  private nonisolated static let drivePrefix = "\(Monitors.prefix)d"
  private nonisolated static let filePrefix = "\(Monitors.prefix)f"
  private nonisolated static let controllerPrefix = "\(Monitors.prefix)s"

  func controllerID() -> String { Self.controllerPrefix + nextNumber() }

  /// The number in an id of ours.
  private static func number(in id: String) -> Int? {
    guard let prefix = [drivePrefix, filePrefix, controllerPrefix].first(where: id.hasPrefix) else { return nil }
    return Int(id.dropFirst(prefix.count).prefix { $0 != "-" }, radix: 36)
  }

  /// The node of a drive's device, and the drive's name if the device's id has it; nil for what is no drive of ours.
  static func parts(ofDevice id: String) -> (node: String, name: String?)? {
    guard id.hasPrefix(drivePrefix), number(in: id) != nil else { return nil }
    guard let dash = id.dropFirst(drivePrefix.count).firstIndex(of: "-") else { return (id, nil) }
    return (String(id[..<dash]), DriveName.decode(id[id.index(after: dash)...]))
  }

  private func nextNumber() -> String {
    counter += 1
    return String(counter, radix: 36)
  }

  /// A node to be for a file.
  private func fileNode(_ backing: BackingFile) -> FileNode {
    let number = nextNumber()
    return FileNode(id: Self.filePrefix + number, set: counter, backing)
  }

  // MARK: the operations

  /// How long a name may take to get free whose drive is being removed, when it is wanted again. A SCSI drive goes within
  /// milliseconds of the removal's reply.
  private static let farewell = Duration.milliseconds(500)

  /// Adds a drive under a name of the caller's. When it returns, the guest has been told.
  public func add(_ name: String, _ backing: BackingFile, _ configuration: StorageConfiguration) async throws(StorageError) {
    try await begin()
    defer { end() }
    if let leaving = drives[name], leaving.state == .removing { _ = await leaving.hasGone.value(within: Self.farewell) }
    guard drives[name] == nil, !immutable.contains(name) else { throw .exists }
    let file = fileNode(backing)
    let drive = Drive(name: name, id: Self.drivePrefix + nextNumber(), file: file, configuration)
    drives[name] = drive
    do {
      if !configuration.isSCSI { drive.port = try reservePort() }
      var addition = StorageAddition(storage: self, drive: drive, file: file)
      try await addition.run()
    } catch {
      // One that nobody knows the state of is forgotten when it has been taken back.
      if drive.state == .adding { forget(drive) }
      throw error
    }
    settle(drive)
    logger.info("storage added", metadata: ["name": "\(name)", "device": "\(drive.deviceID)"])
  }

  /// How long a guest may take to let go of a drive before it can be asked again.
  var answerLimit = Duration.seconds(5)

  /// Asks the guest to let go of a drive. The drive is gone when the guest has; QEMU tells that by an event, DEVICE_DELETED.
  public func remove(_ name: String) async throws(StorageError) {
    try await begin()
    defer { end() }
    let drive = try find(name)
    // A guest that was not up yet has missed the question, and nobody asks it again but us.
    let mayAskAgain = drive.state == .removing && drive.asked.map { .now - $0 >= answerLimit } == true
    if !mayAskAgain { try requireIdle(drive) }
    try await StorageRemoval(storage: self, drive: drive).run()
  }

  /// Puts another file under a drive, which stays where it is for the guest.
  public func replace(_ name: String, with backing: BackingFile) async throws(StorageError) {
    try await begin()
    defer { end() }
    let drive = try find(name)
    guard drive.isReadOnly || !backing.isReadOnly else { throw .readOnly }
    try requireIdle(drive)
    drive.state = .replacing
    var replacement = StorageReplacement(storage: self, drive: drive, file: fileNode(backing))
    try await replacement.run()
    logger.info("storage replaced", metadata: ["name": "\(name)", "device": "\(drive.deviceID)"])
  }

  private func find(_ name: String) throws(StorageError) -> Drive {
    if let drive = drives[name] { return drive }
    throw immutable.contains(name) ? .immutable : .notFound
  }

  private func requireIdle(_ drive: Drive) throws(StorageError) {
    switch drive.state {
    case .attached: return
    case .adding: throw .busy("the drive is being added")
    case .replacing: throw .busy("the drive's file is being replaced")
    case .removing: throw .busy("the drive is being removed, and the guest has not let go of it yet")
    }
  }

  private func begin() async throws(StorageError) {
    operations += 1
    do {
      try await takeInventory()
    } catch {
      end()
      throw .machine(error)
    }
  }

  private func end() {
    operations -= 1
    guard operations == 0 else { return }
    idle?.fulfil()
    idle = nil
  }

  /// Whether an operation is under way.
  var isBusy: Bool { operations > 0 }
  /// Whether there are drives, as far as is known.
  var hasDrives: Bool { !drives.isEmpty }

  /// Waits until no operation is under way, but no longer than `limit`.
  func idle(within limit: Duration) async {
    guard operations > 0 else { return }
    let idle = self.idle ?? Promise<Void>()
    self.idle = idle
    _ = await idle.value(within: limit)
  }

  // MARK: ports

  func reservePort() throws(StorageError) -> String { try ports.reserve() }
  func releasePort(_ port: String) { ports.release(port) }

  // MARK: the ends of operations and of drives

  /// An operation is over, and the drive stays, unless it was deleted meanwhile.
  func settle(_ drive: Drive) {
    drive.state = .attached
    if drive.wasDeleted { deviceHasGone(drive) }
  }

  /// Runs `body` when QEMU answers again, unless it is lost instead.
  func whenRecovered(_ body: @escaping @EventLoopActor @Sendable () async -> Void) {
    operations += 1
    startTask {
      await self.control.recovered()
      if self.control.lost.result == nil { await body() }
      self.end()
    }
  }

  /// Takes back a drive of which nobody knows what there is of it, once QEMU answers again.
  ///
  /// - Parameter file: the node that its file was to have, with a set of descriptors that may be left.
  func abandon(_ drive: Drive, _ file: FileNode? = nil) {
    drive.state = .removing
    whenRecovered {
      let results = await self.control.pipeline([drive.deviceDelete] + (file.map { [$0.removeSet] } ?? []))
      switch results[0].failure {
      case nil: drive.asked = .now
      case let failure? where failure.isUncertain: self.abandon(drive, file)
      default: self.deviceHasGone(drive)
      }
    }
  }

  /// Lets go of a drive's name and of its port.
  private func forget(_ drive: Drive) {
    drives[drive.name] = nil
    drive.hasGone.fulfil()
    if let port = drive.port { ports.release(port) }
    drive.port = nil
  }

  /// The guest has let go of the drive, or the device was never there: its nodes go too.
  ///
  /// The name is free at once. What is done next under that name goes to QEMU behind this.
  func deviceHasGone(_ drive: Drive) {
    guard drives[drive.name] === drive else { return }
    forget(drive)
    logger.info("storage removed", metadata: ["name": "\(drive.name)", "device": "\(drive.deviceID)"])
    operations += 1
    startTask {
      for failure in await self.control.pipeline([.nodeDelete(drive.id), .nodeDelete(drive.fileNode)]).compactMap(\.failure) {
        self.logger.notice("a node of \(drive.id) is left, or never was: \(failure)")
      }
      if drive.usesController { await self.controller.release() }
      self.end()
    }
  }

  /// Takes part in what QEMU tells.
  func handle(_ event: QMPEvent) {
    guard let id = event.data?["device"]?.string, id.hasPrefix(Monitors.prefix) else { return }
    let drive = drives.values.first { $0.deviceID == id }
    switch event.name {
    case "DEVICE_DELETED":
      if let inventory, inventory.result == nil { goneMeanwhile.insert(id) }
      switch drive?.state {
      case .attached?, .removing?: drive.map(deviceHasGone)
      case .adding?, .replacing?: drive?.wasDeleted = true
      case nil: controller.deviceHasGone(id)
      }
    case "DEVICE_UNPLUG_GUEST_ERROR":
      if let drive {
        logger.warning("the guest keeps the drive \(id)")
        if drive.state == .removing { drive.state = .attached }
      } else {
        controller.guestKeeps(id)
      }
    default: break
    }
  }

  /// Looks which devices are still there, after events may have been lost.
  func resynchronize() async {
    guard !drives.isEmpty, let list = try? await control.execute("qom-list", .object(["path": .string(Self.peripherals)])) else { return }
    let present = Set((list.elements ?? []).compactMap { $0["name"]?.string })
    for drive in drives.values where (drive.state == .attached || drive.state == .removing) && !present.contains(drive.deviceID) {
      deviceHasGone(drive)
    }
  }

  // MARK: what there was before

  private static let peripherals = StorageAdoption.peripherals

  /// Learns, before the first operation, which ports there are and which names are taken: by the command line, and by daemons that
  /// have had this QEMU before.
  func takeInventory() async throws(MachineError) {
    if let inventory { return try await inventory.value.get() }
    let inventory = Promise<Result<Void, MachineError>>()
    self.inventory = inventory
    defer { goneMeanwhile = [] }
    let result: Result<Void, MachineError>
    do throws(QMPError) {
      result = .success(try await readInventory())
    } catch {
      result = .failure(.qmp(error))
      self.inventory = nil
    }
    inventory.fulfil(result)
    try result.get()
  }

  private func readInventory() async throws(QMPError) {
    let results = await control.pipeline([
      QMPCommand("qom-list", .object(["path": .string(Self.peripherals)])), QMPCommand("query-block"),
      QMPCommand("query-named-block-nodes", .object(["flat": .boolean(true)])),
    ])
    let listed = try results[0].get().elements ?? []
    let devices = listed.compactMap { $0["name"]?.string }
    immutable = Self.names(ofDrives: try results[1].get().elements ?? [])
    let blockNodes = try results[2].get().elements ?? []
    let nodes = blockNodes.compactMap { $0["node-name"]?.string }
    counter = (devices + nodes).compactMap(Self.number(in:)).max() ?? 0
    let portIDs = (0..<HotplugPorts.count).map(HotplugPorts.id).filter(devices.contains)
    var adoption = try await StorageAdoption(
      devices: listed, nodes: blockNodes, controllerPrefix: Self.controllerPrefix, control: control)
    let taken = try await portsInUse(portIDs, devices)
    // From here on events find the drives.
    ports = HotplugPorts(portIDs, taken: taken.subtracting(adoption.drop(goneMeanwhile)))
    adopt(adoption)
    let adopted = Set(adoption.drives.flatMap { [$0.id, $0.fileNode] })
    await removeStrays(nodes.filter { !adopted.contains($0) })
  }

  /// Takes over the drives of a daemon before.
  private func adopt(_ adoption: StorageAdoption) {
    // Two have one name if a session has made a device with an id like ours.
    for drive in adoption.drives where drives[drive.name] == nil { drives[drive.name] = drive }
    if let (id, port) = adoption.controller { controller.adopt(id, port: port, users: adoption.drives.count(where: \.usesController)) }
    if !drives.isEmpty { logger.notice("found \(drives.count) drives that a daemon before has added") }
  }

  /// The ports that have a device, left by a daemon before. A machine that has just been started has none.
  private func portsInUse(_ ports: [String], _ devices: [String]) async throws(QMPError) -> Set<String> {
    guard devices.contains(where: { $0.hasPrefix(Self.drivePrefix) || $0.hasPrefix(Self.controllerPrefix) }) else { return [] }
    // A port's bus is called like the port.
    let buses = await control.pipeline(
      ports.map { QMPCommand("qom-list", .object(["path": .string("\(Self.peripherals)/\($0)/\($0)")])) })
    var taken: Set<String> = []
    for (port, bus) in zip(ports, buses) {
      let members = try bus.get().elements ?? []
      if members.contains(where: { $0["name"]?.string?.hasPrefix("child[") == true }) { taken.insert(port) }
    }
    return taken
  }

  /// Removes the nodes that a daemon left which ended in the middle of an operation. QEMU does not remove those that are in use.
  private func removeStrays(_ nodes: [String]) async {
    let ours = nodes.filter { $0.hasPrefix(Self.drivePrefix) } + nodes.filter { $0.hasPrefix(Self.filePrefix) }
    guard !ours.isEmpty else { return }
    let removed = await control.pipeline(ours.map(QMPCommand.nodeDelete)).count { $0.failure == nil }
    if removed > 0 { logger.notice("removed \(removed) block nodes that a daemon before left behind") }
  }

  /// All that the drives in a reply to `query-block` are called: by node, by device, by backend. Not those that a daemon has added.
  private static func names(ofDrives drives: [JSONVariant]) -> Set<String> {
    var names: Set<String> = []
    for drive in drives {
      names.formUnion([drive["device"]?.string, drive["inserted"]?["node-name"]?.string].compactMap { $0 })
      if let device = drive["qdev"]?.string {
        // An id, or a path that has it behind /machine/peripheral/.
        names.insert(device.hasPrefix("\(peripherals)/") ? String(device.split(separator: "/")[2]) : device)
      }
    }
    return names.filter { !$0.isEmpty && !$0.hasPrefix(Monitors.prefix) }
  }
}
