import Logging
import Machine
import QMP
import Relay
import SystemdEvent

/// The monitor that sessions share: there from the first of them to the last.
@EventLoopActor
final class SharedSessions {
  @EventLoopActor
  fileprivate final class Sharing {
    let monitor: SharedMonitor
    let sharing: MonitorSharing
    var users = 0
    /// The last has left it, and it is being given back.
    var isClosed = false
    /// Waits for the monitor's end, which may outlive this: the control monitor stays.
    var endWaiter: Int?
    init(_ monitor: SharedMonitor, _ sharing: MonitorSharing) {
      self.monitor = monitor
      self.sharing = sharing
    }
  }

  /// A place on the shared monitor, to be given back.
  @EventLoopActor
  final class Place {
    fileprivate let sharing: Sharing
    let endpoint: SharedEndpoint
    /// The monitor's id, if it was added for the sessions.
    var monitor: String? { if case .added(let id) = sharing.monitor.kind { id } else { nil } }
    fileprivate init(_ sharing: Sharing, _ endpoint: SharedEndpoint) {
      self.sharing = sharing
      self.endpoint = endpoint
    }
  }

  private let machine: Machine
  private let logger: Logger
  private var current: Sharing?
  private var inTheMaking: Promise<Result<Sharing, MachineError>>?

  init(machine: Machine, logger: Logger) {
    self.machine = machine
    self.logger = logger
  }

  /// Whether the sessions share because they cannot do otherwise. False if that is not known.
  var isOnlyWay: Bool { current.map { if case .added = $0.monitor.kind { false } else { true } } ?? false }

  /// A place that was taken, and the socket there, which behaves as a monitor of one's own.
  struct Opening: ~Copyable {
    let place: Place
    let socket: OwnedDescriptor
    consuming func takeSocket() -> OwnedDescriptor { socket }
  }

  /// Takes a place.
  func open() async throws(MachineError) -> Opening {
    var sharing = try await sharing()
    while sharing.isClosed { sharing = try await self.sharing() }
    sharing.users += 1
    do throws(SystemdError) {
      let session = try sharing.sharing.open()
      let endpoint = session.endpoint
      return Opening(place: Place(sharing, endpoint), socket: session.takeSocket())
    } catch {
      await leave(sharing)
      throw .system(error)
    }
  }

  /// Gives a place back whose session has come to rest, or has lost its monitor.
  func close(_ place: Place) async {
    place.endpoint.finish()
    await leave(place.sharing)
  }

  private func leave(_ sharing: Sharing) async {
    sharing.users -= 1
    guard sharing.users == 0 else { return }
    sharing.isClosed = true
    if let waiter = sharing.endWaiter { sharing.monitor.lost.forget(waiter) }
    if current === sharing { current = nil }
    do {
      try await machine.closeSharedMonitor(sharing.monitor)
    } catch .qmp(.disconnected) {
      // QEMU took it along.
    } catch {
      logger.error("the shared monitor could not be removed: \(error)")
    }
  }

  private func sharing() async throws(MachineError) -> Sharing {
    if let current { return current }
    if let inTheMaking { return try await inTheMaking.value.get() }
    let making = Promise<Result<Sharing, MachineError>>()
    inTheMaking = making
    let made: Result<Sharing, MachineError>
    do throws(MachineError) { made = .success(try await make()) } catch { made = .failure(error) }
    inTheMaking = nil
    current = try? made.get()
    making.fulfil(made)
    return try made.get()
  }

  private func make() async throws(MachineError) -> Sharing {
    let monitor = try await machine.openSharedMonitor()
    let answer = Promise<Result<[UInt8], QMPError>>()
    monitor.submit(QEMUParser.question) { answer.fulfil($0) }
    let parser: QEMUParser
    do throws(QMPError) {
      parser = QEMUParser(answering: try await (answer.value(within: machine.responseLimit) ?? .failure(.timedOut)).get())
    } catch {
      // Nobody waits for a QEMU that does not answer.
      startTask { [machine] in try? await machine.closeSharedMonitor(monitor) }
      throw .qmp(error)
    }
    let sharing = MonitorSharing(greeting: monitor.greeting, parser: parser) { [logger] text, descriptors, reply in
      monitor.submit(text, descriptors: descriptors) { result in
        if case .failure(let error) = result, error != .disconnected { logger.warning("a session on the shared monitor ends: \(error)") }
        reply(try? result.get())
      }
    }
    let made = Sharing(monitor, sharing)
    monitor.onEvent = { [weak sharing] event in sharing?.event(event) }
    made.endWaiter = monitor.lost.whenFulfilled { [weak self, weak made, weak sharing] _ in
      if let self, let made, current === made { current = nil }
      sharing?.end()
    }
    return made
  }
}
