import Logging
public import QMP
import SystemPackage
public import SystemdEvent
import SystemdJSON

/// A negotiated monitor for sessions that share it.
@EventLoopActor
public final class SharedMonitor {
  /// Which monitor it is.
  public enum Kind: Sendable, Equatable {
    /// One that was added for this.
    case added(id: String)
    /// One that QEMU was started with and nobody else uses.
    case spare(socket: String)
    /// The daemon's own.
    case control
  }

  public let kind: Kind
  /// QEMU's greeting, without its line end.
  public var greeting: [UInt8] { client.greetingText }
  /// Called with each event of QEMU, as it came, in its place between the replies.
  public var onEvent: (([UInt8]) -> Void)?
  /// Fulfilled when there will be no more of it.
  public var lost: Promise<QMPError> { client.disconnected }

  let client: QMPClient
  /// The subscription for the control monitor's events.
  var subscription: Int?
  /// How many commands wait for their replies, and since when none has come.
  private var waiting = 0
  private var quietSince = ContinuousClock.now
  private var watch: (patience: Duration, isOverdue: () -> Void)?
  /// Runs while there are commands to watch; it is not set anew for each of them.
  private var watchdog: EventSource?

  init(_ kind: Kind, _ client: QMPClient) {
    self.kind = kind
    self.client = client
    client.keepsEventText = true
  }

  /// Sends a command that is whole; see ``QMPClient/submit(_:descriptors:reply:)``.
  public func submit(_ text: [UInt8], descriptors: [CInt] = [], reply: @escaping (Result<[UInt8], QMPError>) -> Void) {
    if waiting == 0 { quietSince = .now }
    waiting += 1
    client.submit(text, descriptors: descriptors) { [weak self] result in
      self?.waiting -= 1
      self?.quietSince = .now
      reply(result)
    }
    if let watch, watchdog == nil { look(after: watch.patience) }
  }

  /// Calls `isOverdue` when commands wait and no reply has come for as long as `patience`, and again each time that passes once more.
  func watch(for patience: Duration, isOverdue: @escaping () -> Void) { watch = (patience, isOverdue) }

  private func look(after delay: Duration) {
    watchdog = try? EventSource.timer(after: delay) { [weak self] in self?.look() }
  }

  private func look() {
    watchdog = nil
    guard let watch, waiting > 0, lost.result == nil else { return }
    let quiet = ContinuousClock.now - quietSince
    guard quiet >= watch.patience else { return look(after: watch.patience - quiet) }
    look(after: watch.patience)
    watch.isOverdue()
  }
}

// The monitor that sessions share.
extension Machine {
  /// How long a command may take before QEMU counts as not responding.
  public var responseLimit: Duration { control.responseLimit }

  /// Whether monitors can be added while this QEMU runs.
  public func canAddMonitors() async throws(MachineError) -> Bool {
    do { return try await monitors.knownDialect() != nil } catch { throw .qmp(error) }
  }

  /// How sessions are served on this QEMU, in words.
  public func sessionModes() async throws(MachineError) -> String {
    if try await canAddMonitors() { return "each session gets a monitor of its own" }
    if let socket = spareSockets.first { return "this QEMU cannot add monitors while it runs: sessions share the one at \(socket)" }
    return "this QEMU cannot add monitors while it runs: sessions share the control monitor"
  }

  /// Has a monitor ready for sessions that share it: a new one where QEMU can add monitors, else one that QEMU was started with and
  /// nobody uses, else the control monitor.
  public func openSharedMonitor() async throws(MachineError) -> SharedMonitor {
    if try await canAddMonitors() { return try await addSharedMonitor() }
    guard control.isResponding else { throw .qmp(.timedOut) }
    for socket in spareSockets {
      if let spare = await connect(socket) { return spare }
    }
    if !spareSockets.isEmpty { logger.notice("no other monitor is free: sessions share the control monitor") }
    let shared = SharedMonitor(.control, control.sharedClient)
    shared.subscription = subscribe(includingUnreadable: true) { [weak shared] event in
      if !event.text.isEmpty { shared?.onEvent?(event.text) }
    }
    return shared
  }

  private func addSharedMonitor() async throws(MachineError) -> SharedMonitor {
    let added = try await monitors.add()
    let id = added.id
    do {
      let client = try QMPClient(added.takeSocket())
      _ = try await client.negotiate(within: responseLimit)
      let shared = SharedMonitor(.added(id: id), client)
      client.onEvent = { [weak shared] event in shared?.onEvent?(event.text) }
      // A session has full control over the VM, and so over this monitor: one that was deleted looks like one that is slow.
      shared.watch(for: responseLimit) { [weak self] in startTask { await self?.examineMonitor(id) } }
      control.sharedID = id
      return shared
    } catch {
      // Nobody waits for a QEMU that does not answer.
      startTask { try? await self.monitors.remove(id) }
      throw error as? MachineError ?? (error as? QMPError).map { .qmp($0) } ?? .qmp(.disconnected)
    }
  }

  /// How long a spare monitor may take to greet. Then it has another client, or is none.
  private static let greetingLimit = Duration.seconds(2)

  private func connect(_ socket: FilePath) async -> SharedMonitor? {
    do {
      let client = try QMPClient(connectingTo: socket)
      // Whoever listens there now: QEMU told where it did when it began.
      guard let process = client.serverProcess, process == control.serverProcess else {
        logger.notice("nothing to share at \(socket): another process listens there")
        return nil
      }
      _ = try await client.negotiate(within: Self.greetingLimit)
      let shared = SharedMonitor(.spare(socket: socket.string), client)
      client.onEvent = { [weak shared] event in shared?.onEvent?(event.text) }
      return shared
    } catch {
      logger.notice("nothing to share at \(socket): \(error)")
      return nil
    }
  }

  /// Gives it back. No command may be under way on it.
  public func closeSharedMonitor(_ shared: SharedMonitor) async throws(MachineError) {
    shared.onEvent = nil
    if let subscription = shared.subscription { unsubscribe(subscription) }
    switch shared.kind {
    case .control: break
    case .spare: shared.client.close()
    case .added(let id):
      if control.sharedID == id { control.sharedID = nil }
      defer { shared.client.close() }
      guard disconnected.result == nil else { return }
      if lostToOthers(shared) { await monitors.discard(id) } else { try await monitors.remove(id) }
    }
  }

  /// Whether somebody else has removed it while QEMU is there.
  private func lostToOthers(_ shared: SharedMonitor) -> Bool { shared.lost.result != nil }
}
