import QMP
import SystemdEvent
import SystemdJSON

/// Brings a drive into the machine: a node for the file, one on top that stays when the file is replaced, and the device.
@EventLoopActor
struct StorageAddition {
  private let storage: Storage
  private let drive: Drive
  private let file: FileNode
  private var undo = UndoList()

  init(storage: Storage, drive: Drive, file: FileNode) {
    self.storage = storage
    self.drive = drive
    self.file = file
  }

  /// - Throws: the first failure, when all that was made has been taken back, or will be as soon as QEMU answers again.
  mutating func run() async throws(StorageError) {
    try await makeNodes()
    try await plug(into: try await bus())
  }

  private mutating func makeNodes() async throws(StorageError) {
    let results = await storage.control.pipeline(file.commands + [QMPCommand("blockdev-add", drive.node(on: file.id))])
    file.note(results, in: &undo)
    if results[file.commands.count].failure == nil { undo.append(.nodeDelete(drive.id)) }
    try await check(results)
  }

  /// The bus that the device goes to: that of its own port, or that of the controller, which may have to be made.
  private func bus() async throws(StorageError) -> String {
    if let port = drive.port { return port }
    do {
      let bus = try await storage.controller.acquire()
      drive.usesController = true
      return bus
    } catch {
      await takeBack()
      throw error
    }
  }

  private func plug(into bus: String) async throws(StorageError) {
    try await check(await storage.control.pipeline([drive.deviceAdd(bus: bus)]))
    if drive.usesController { storage.controller.hasAttached() }
  }

  private func check(_ results: [Result<JSONVariant, QMPError>]) async throws(StorageError) {
    guard let failure = results.firstFailure else { return }
    if results.isUncertain {
      storage.abandon(drive, file)
    } else {
      await takeBack()
    }
    throw .machine(.qmp(failure))
  }

  private func takeBack() async {
    guard await undo.run(storage.control, storage.logger) else { return storage.abandon(drive, file) }
    if drive.usesController { await storage.controller.release() }
  }
}
