import Logging
import QMP
import SystemdEvent
import SystemdJSON

/// Puts another file under a drive: a node for the new file, the drive's own node reopened on it, and the old file's node deleted.
@EventLoopActor
struct StorageReplacement {
  private let storage: Storage
  private let drive: Drive
  private let file: FileNode
  private var undo = UndoList()

  init(storage: Storage, drive: Drive, file: FileNode) {
    self.storage = storage
    self.drive = drive
    self.file = file
  }

  /// - Throws: the first failure, when the old file is back in its place, or will be as soon as QEMU answers again.
  mutating func run() async throws(StorageError) {
    let old = drive.fileNode
    let results = await storage.control.pipeline(file.commands + [reopen(on: file.id)])
    file.note(results, in: &undo)
    if results[file.commands.count].failure == nil { undo.append(reopen(on: old)) }
    try await check(results)
    try await check(await storage.control.pipeline([.nodeDelete(old)]))
    drive.fileNode = file.id
    await tellSize()
    storage.settle(drive)
  }

  private func reopen(on file: String) -> QMPCommand {
    QMPCommand("blockdev-reopen", .object(["options": .array([drive.node(on: file)])]))
  }

  /// Has the guest see the new size. It is a courtesy: the new file is in its place already.
  ///
  /// To give the file the size that it has is the only way in which QEMU has the device tell.
  private func tellSize() async {
    let size = file.backing.size
    guard size != drive.size else { return }
    drive.size = size
    guard drive.configuration.canResize, !drive.isReadOnly, size > 0, size.isMultiple(of: 512) else { return }
    let arguments = JSONVariant.object(["node-name": .string(drive.id), "size": .integer(size)])
    if let failure = await storage.control.pipeline([QMPCommand("block_resize", arguments)]).firstFailure {
      storage.logger.notice("the guest may not see the new size of \(drive.id): \(failure)")
    }
  }

  private func check(_ results: [Result<JSONVariant, QMPError>]) async throws(StorageError) {
    guard let failure = results.firstFailure else { return }
    if !results.isUncertain, await undo.run(storage.control, storage.logger) {
      storage.settle(drive)
    } else {
      settleLater()
    }
    throw .machine(.qmp(failure))
  }

  /// Nobody knows how far it came. Once QEMU answers again, the old file is put back; if its node is gone, the new one is in place.
  private func settleLater() {
    storage.whenRecovered { [storage, drive, file] in
      let old = drive.fileNode
      let back = await storage.control.pipeline([reopen(on: old)])
      if back.isUncertain { return settleLater() }
      let isBack = back.firstFailure == nil
      if !isBack {
        drive.fileNode = file.id
        drive.size = file.backing.size
      }
      // The other of the two is there or not, and so is the set.
      _ = await storage.control.pipeline([.nodeDelete(isBack ? file.id : old), file.removeSet])
      storage.settle(drive)
    }
  }
}
