import Logging
import QMP
import SystemdEvent
import SystemdJSON

/// The controller that all SCSI drives share. It is made for the first of them, and then stays.
@EventLoopActor
final class SCSIController {
  private enum State {
    case none
    case making(Promise<Result<String, StorageError>>)
    case ready(id: String, port: String)
  }

  private let control: ControlMonitor
  /// Whose it is, and who calls it.
  private unowned let storage: Storage
  private var state = State.none
  /// How many drives are on it or will be, and whether there ever was one.
  private var users = 0
  private var hasServed = false
  /// Controllers that the guest is asked to let go of, and their ports.
  private var departing: [String: String] = [:]

  init(control: ControlMonitor, storage: Storage) {
    self.control = control
    self.storage = storage
  }

  /// Takes over the one that a daemon before has made. It stays.
  func adopt(_ id: String, port: String, users: Int) {
    state = .ready(id: id, port: port)
    self.users = users
    hasServed = true
  }

  /// The bus for one more drive. Whoever gets it tells what became of that: ``hasAttached()`` or ``release()``.
  func acquire() async throws(StorageError) -> String {
    switch state {
    case .ready(let id, _):
      users += 1
      return "\(id).0"
    case .making(let promise):
      let id = try await promise.value.get()
      // It may have been given up meanwhile.
      if case .ready(id, _) = state { users += 1 } else { return try await acquire() }
      return "\(id).0"
    case .none:
      let made = Promise<Result<String, StorageError>>()
      let port = try storage.reservePort()
      state = .making(made)
      let result = await make(port)
      made.fulfil(result)
      return "\(try result.get()).0"
    }
  }

  private func make(_ port: String) async -> Result<String, StorageError> {
    let id = storage.controllerID()
    do throws(QMPError) {
      try await control.execute(
        "device_add", .object(["driver": .string("virtio-scsi-pci"), "id": .string(id), "bus": .string(port)]))
      users = 1
      hasServed = false
      state = .ready(id: id, port: port)
      return .success(id)
    } catch {
      state = .none
      if error.isUncertain {
        // Whether it is there shows when QEMU answers again; until then its port is not free.
        storage.whenRecovered { await self.remove(id, port) }
      } else {
        storage.releasePort(port)
      }
      return .failure(.machine(.qmp(error)))
    }
  }

  /// The drive that the bus was for is there.
  func hasAttached() { hasServed = true }

  /// A drive has gone, or did not come about. A controller that was made for nothing is removed again.
  func release() async {
    users -= 1
    guard users == 0, !hasServed, case .ready(let id, let port) = state else { return }
    state = .none
    await remove(id, port)
  }

  private func remove(_ id: String, _ port: String) async {
    guard control.lost.result == nil else { return }
    departing[id] = port
    do {
      try await control.execute("device_del", .object(["id": .string(id)]))
    } catch {
      // It was never made, then. Anything else, and it has its port for good.
      if case .execute(_, "DeviceNotFound", _) = error { deviceHasGone(id) }
    }
  }

  /// A device was deleted, on our wish or somebody else's.
  func deviceHasGone(_ id: String) {
    if let port = departing.removeValue(forKey: id) {
      storage.releasePort(port)
    } else if case .ready(id, let port) = state {
      state = .none
      users = 0
      storage.releasePort(port)
    }
  }

  /// The guest keeps a device that it was asked to let go of.
  func guestKeeps(_ id: String) {
    guard case .none = state, let port = departing.removeValue(forKey: id) else { return }
    state = .ready(id: id, port: port)
    // It has shown that it stays.
    hasServed = true
  }
}
