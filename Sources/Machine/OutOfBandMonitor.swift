import Logging
import QMP
import SystemdEvent
import SystemdJSON

/// The monitor for commands that QEMU executes at once, even while its main thread is stuck in another.
///
/// It is made for the first such command and then kept, because an open monitor costs every other command some time, and
/// because when such a command is needed most, QEMU cannot add monitors any more. The control monitor is not used for them: with
/// the capability `oob` QEMU reads ahead on a monitor, and to remove monitors safely we rely on its not doing so. Nothing else
/// is sent here, so replies come in the order of the commands, and ids are not needed.
@EventLoopActor
final class OutOfBandMonitor {
  private let control: ControlMonitor
  private let monitors: Monitors
  private let responseLimit: Duration
  private let logger: Logger
  private var kept: (id: String, client: QMPClient)?
  private var inTheMaking: Promise<Result<QMPClient, MachineError>>?

  init(control: ControlMonitor, monitors: Monitors, responseLimit: Duration, logger: Logger) {
    self.control = control
    self.monitors = monitors
    self.responseLimit = responseLimit
    self.logger = logger
  }

  /// Executes a command out of band.
  func execute(_ command: String, _ arguments: JSONVariant?) async throws(MachineError) -> JSONVariant {
    let client = try await client()
    do throws(QMPError) {
      return try await client.pipeline([QMPCommand(command, arguments, isOutOfBand: true)])[0].get()
    } catch {
      if error == .timedOut, let kept { startTask { await self.monitors.discardIfDeleted(kept.id) } }
      // QEMU itself is there; it was this monitor that somebody has deleted.
      if error == .disconnected, control.lost.result == nil { throw .qmp(.timedOut) }
      throw .qmp(error)
    }
  }

  private func client() async throws(MachineError) -> QMPClient {
    if let kept { return kept.client }
    if let inTheMaking { return try await inTheMaking.value.get() }
    let making = Promise<Result<QMPClient, MachineError>>()
    inTheMaking = making
    let made: Result<QMPClient, MachineError>
    do throws(MachineError) { made = .success(try await make()) } catch { made = .failure(error) }
    inTheMaking = nil
    making.fulfil(made)
    return try made.get()
  }

  private func make() async throws(MachineError) -> QMPClient {
    let added = try await monitors.add()
    let id = added.id
    let client: QMPClient
    do { client = try QMPClient(added.takeSocket()) } catch { throw .system(error) }
    client.responseLimit = responseLimit
    do throws(QMPError) {
      _ = try await client.negotiate(enabling: ["oob"])
    } catch {
      try? await monitors.remove(id)
      throw .qmp(error)
    }
    kept = (id, client)
    control.outOfBandID = id
    client.disconnected.whenFulfilled { [weak self] _ in
      guard let self, kept?.client === client else { return }
      kept = nil
      control.outOfBandID = nil
      if control.lost.result == nil { logger.debug("the monitor for out-of-band commands was removed from QEMU") }
    }
    return client
  }

  /// Removes the monitor, if there is one.
  func remove() async {
    guard let kept else { return }
    self.kept = nil
    control.outOfBandID = nil
    do {
      try await monitors.remove(kept.id)
    } catch {
      logger.warning("could not remove the monitor for out-of-band commands: \(error)")
    }
    kept.client.close()
  }
}
