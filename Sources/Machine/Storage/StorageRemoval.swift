import QMP
import SystemdEvent

/// Asks the guest to let go of a drive. What follows when it has is ``Storage/deviceHasGone(_:)``.
@EventLoopActor
struct StorageRemoval {
  private let storage: Storage
  private let drive: Drive

  init(storage: Storage, drive: Drive) {
    self.storage = storage
    self.drive = drive
  }

  func run() async throws(StorageError) {
    drive.state = .removing
    drive.asked = nil
    do throws(QMPError) {
      try await storage.control.execute(drive.deviceDelete.name, drive.deviceDelete.arguments)
      drive.asked = .now
    } catch {
      switch error {
      case .execute(_, "DeviceNotFound", _):
        // Somebody else has removed it, and the event was lost.
        return storage.deviceHasGone(drive)
      case _ where error.isUncertain: storage.abandon(drive)
      default: drive.state = .attached
      }
      throw .machine(.qmp(error))
    }
  }
}
