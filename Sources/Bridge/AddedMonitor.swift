import Machine
import Relay
import SystemPackage
import SystemdEvent
import SystemdJSON

/// A monitor that somebody asked for, with an id of their choice, and the client that it has at the moment.
@EventLoopActor
final class AddedMonitor {
  /// Where its clients come from.
  enum Clients {
    /// One after the other.
    case listening(ListeningSocket)
    /// One, which is there already. The descriptor is this monitor's until it is taken.
    case connected(CInt)
    /// QEMU's business: nothing of theirs passes through here.
    case chardev(String)
  }

  let id: String
  let isPretty: Bool
  /// Our end of the monitor's socket, while no client is connected to it.
  var socket: OwnedDescriptor?
  private(set) var session: Session?
  /// It is to be removed, and lets no further client in.
  private(set) var isRemoving = false
  /// Fulfilled when it is gone, or could not be removed.
  private(set) var removal = Promise<Result<Void, MachineError>>()
  private var clients: Clients

  init(_ id: String, isPretty: Bool, clients: Clients) {
    self.id = id
    self.isPretty = isPretty
    self.clients = clients
  }

  isolated deinit { if case .connected(let descriptor) = clients, descriptor >= 0 { _ = OwnedDescriptor(owning: descriptor) } }

  /// The chardev of QEMU's that it is on, if it is on one that stays.
  var foreignChardev: String? { if case .chardev(let chardev) = clients { chardev } else { nil } }
  var chardev: String { foreignChardev ?? Monitors.chardev(of: id) }
  private var path: FilePath? { if case .listening(let socket) = clients { socket.path } else { nil } }

  /// The next client; nil when there will be none.
  func nextClient() async -> OwnedDescriptor? {
    switch clients {
    case .listening(let socket): return await socket.accept()
    case .connected(let descriptor):
      clients = .connected(-1)
      return descriptor >= 0 ? OwnedDescriptor(owning: descriptor) : nil
    case .chardev: return nil
    }
  }

  /// Whether there may be another client when this one has gone.
  var takesFurtherClients: Bool { if case .listening = clients { !isRemoving } else { false } }

  /// Lets no further client in, and has the one that there is served to its end.
  func beginRemoval(because reason: String) {
    isRemoving = true
    if case .listening(let socket) = clients { socket.close() }
    session?.relay.stop(because: reason)
  }

  /// It is gone, and those who wait for that may know.
  func endRemoval() { removal.fulfil(.success(())) }

  /// It is there still, and may be removed at another time.
  func giveUpRemoval(_ error: MachineError) {
    isRemoving = false
    let failed = removal
    removal = Promise()
    failed.fulfil(.failure(error))
  }

  /// Serves a client until its session has ended, which takes the monitor along.
  ///
  /// - Returns: how the session ended.
  func serve(_ session: Session) async -> Relay.End {
    self.session = session
    // It may have been asked for while the client was let in.
    if isRemoving { session.relay.stop(because: "the monitor is removed") }
    let end = await session.ended.value
    self.session = nil
    return end
  }

  /// The monitor as it is, for the next run of the daemon.
  ///
  /// - Parameter hasSession: whether there is a session on it that is handed over too.
  /// - Returns: nil while it is about to be removed, or is between two clients.
  func carried(_ handover: Handover, hasSession: Bool) throws(SystemdError) -> JSONVariant? {
    guard !isRemoving else { return nil }
    var listener: JSONVariant?
    switch clients {
    case .listening(let socket):
      guard hasSession || socket.isAwaited else { return nil }
      listener = try handover.add(socket.descriptorNumber)
    case .connected: guard hasSession else { return nil }
    case .chardev: break
    }
    var waiting: JSONVariant?
    if let raw = socket?.raw { waiting = try handover.add(raw) }
    guard foreignChardev != nil || hasSession != (waiting != nil) else { return nil }
    return .object([
      "id": .string(id), "pretty": .boolean(isPretty), "listener": listener, "path": path.map { .string($0.string) },
      "chardev": foreignChardev.map { .string($0) }, "socket": waiting,
    ])
  }

  /// Goes on with a monitor that the run of the daemon before had.
  convenience init(carried: JSONVariant, _ handover: Handover) throws {
    guard let id = carried["id"]?.string, let isPretty = carried["pretty"]?.boolean else {
      throw Handover.Failure("an added monitor that cannot be read")
    }
    let clients: Clients
    if let chardev = carried["chardev"]?.string {
      clients = .chardev(chardev)
    } else if let listener = handover.take(carried["listener"]) {
      clients = .listening(try ListeningSocket(listener, madeAt: carried["path"]?.string.map { FilePath($0) }))
    } else {
      guard carried["listener"] == nil else { throw Handover.Failure("the socket of an added monitor is missing") }
      clients = .connected(-1)
    }
    self.init(id, isPretty: isPretty, clients: clients)
    socket = handover.take(carried["socket"])
  }

  /// The monitor as `io.qmpvarlink.Monitors.Monitor`, as far as it is known without asking QEMU.
  var description: JSONVariant {
    let isForeign = foreignChardev != nil
    let state = isRemoving ? "removing" : isForeign ? nil : session?.relay.state.rawValue ?? "waiting"
    return .object([
      "id": .string(id), "mode": .string(MonitorDescription.Mode.qmp.rawValue), "chardev": .string(chardev), "dynamic": .boolean(true),
      "control": .boolean(false), "state": state.map { .string($0) },
      "connected": isForeign ? nil : .boolean(session.map { !$0.relay.clientIsGone } ?? false),
      "negotiated": isForeign ? nil : .boolean(session?.relay.isNegotiated ?? false), "pretty": .boolean(isPretty),
      "listen": path.map { .string($0.string) },
    ])
  }
}
