import Glibc
import Logging
import Machine
import Relay
import SystemdEvent
import SystemdJSON
import Varlink

/// What a session may do; `io.systemd.QemuMachineInstance.Access`.
enum Access: String, Sendable {
  case full, query
}

/// How a session gets at QEMU; `io.systemd.QemuMachineInstance.SessionMode`.
enum SessionMode: String, Sendable {
  case own, shared
}

/// One upgraded session: who has it, and the relay that carries it.
@EventLoopActor
final class Session {
  /// Also the id of its first monitor, if that is its own.
  let id: String
  /// The id of the monitor of its own that it has; nil while it is parked.
  var monitor: String?
  /// Whether it counts among those that have a monitor or are about to, and since when.
  var hasTurn = false
  var turnBegan = ContinuousClock.now
  /// Whether it is just about to lose its monitor, or to get one.
  var isParking = false
  var isWaking = false
  /// Whether its monitor has been taken out of QEMU, at its end.
  var monitorIsRemoved = false
  /// Whether it is about to be.
  var isBeingRemoved: Bool {
    guard place == nil, let end = relay.drained.result, end != .parked else { return false }
    return !monitorIsRemoved
  }
  /// When its monitor was last looked after.
  var examined = ContinuousClock.now
  let access: Access
  let peer: PeerCredentials
  let relay: Relay
  /// Whether the client came by an upgrade; otherwise it connected to a monitor that was added.
  let isUpgraded: Bool
  /// Its place on the shared monitor; nil for one with a monitor of its own.
  let place: SharedSessions.Place?
  /// Fulfilled when the monitor is removed, or gone, and the client has what it is owed.
  let ended = Promise<Relay.End>()
  /// The name of the client's process. Looked up when it is first asked for: no greeting waits for that.
  private(set) lazy var command = peer.process.flatMap { Self.commandName(of: $0) }
  private let since: UInt64

  init(id: String, access: Access, peer: PeerCredentials, isUpgraded: Bool, place: SharedSessions.Place?, relay: Relay) {
    self.id = id
    self.place = place
    since = EventLoop.shared.wallClock
    monitor = place == nil ? id : nil
    self.isUpgraded = isUpgraded
    self.access = access
    self.peer = peer
    self.relay = relay
  }

  /// The session as it is, for the next run of the daemon; nil if it cannot be handed over at this moment.
  func carried(_ handover: Handover) throws(SystemdError) -> JSONVariant? {
    guard place == nil, let relay = try relay.carried(handover) else { return nil }
    return .object([
      "id": .string(id), "monitor": monitor.map { .string($0) }, "access": .string(access.rawValue), "upgraded": .boolean(isUpgraded),
      "user": peer.user.map { .integer($0) }, "group": peer.group.map { .integer($0) }, "process": peer.process.map { .integer($0) },
      "since": .integer(since), "relay": relay,
    ])
  }

  /// Goes on with a session that the run of the daemon before had.
  ///
  /// - Parameter makeRelay: makes the relay of an id, an access, a peer, and of what that run had of it.
  init(carried: JSONVariant, _ makeRelay: (String, Access, PeerCredentials, JSONVariant) throws -> Relay) throws {
    guard let id = carried["id"]?.string, let access = carried["access"]?.string.flatMap({ Access(rawValue: $0) }),
      let isUpgraded = carried["upgraded"]?.boolean, let since = carried["since"]?.integer, let relay = carried["relay"]
    else { throw Handover.Failure("a session that cannot be read") }
    (self.id, self.access, self.isUpgraded, self.since) = (id, access, isUpgraded, UInt64(clamping: since))
    peer = PeerCredentials(
      user: carried["user"]?.integer.flatMap { UInt32(exactly: $0) }, group: carried["group"]?.integer.flatMap { UInt32(exactly: $0) },
      process: carried["process"]?.integer.flatMap { Int32(exactly: $0) })
    monitor = carried["monitor"]?.string
    place = nil
    isAnnounced = true
    self.relay = try makeRelay(id, access, peer, relay)
  }

  var mode: SessionMode { place == nil ? .own : .shared }

  private var isAnnounced = false

  /// Logs that the session has begun, once.
  func announce(_ logger: Logger) {
    guard !isAnnounced else { return }
    isAnnounced = true
    var metadata: Logger.Metadata = [
      "uid": "\(peer.user ?? .max)", "pid": "\(peer.process ?? 0)", "access": "\(access)", "mode": "\(mode)",
    ]
    if let command { metadata["command"] = "\(command)" }
    logger.info("session opened", metadata: metadata)
  }

  /// The monitor that was added for it, or for it and others.
  private var attachedMonitor: String? { if let place { place.monitor } else { relay.hasMonitor ? monitor : nil } }

  /// The session as `io.qmpvarlink.Sessions.Session`.
  var description: JSONVariant {
    let statistics = relay.statistics
    let idle = ContinuousClock.now - statistics.lastActivity
    return .object([
      "id": .string(id),
      "access": .string(access.rawValue),
      "peer": .object([
        "uid": peer.user.map { .integer($0) }, "gid": peer.group.map { .integer($0) }, "pid": peer.process.map { .integer($0) },
        "command": command.map { .string($0) },
      ]),
      "mode": .string(mode.rawValue),
      "monitor": attachedMonitor.map { .string($0) },
      "chardev": attachedMonitor.map { .string(Monitors.chardev(of: $0)) },
      "sinceUSec": .integer(since),
      "idleUSec": .integer(idle.microseconds),
      "bytesIn": .integer(statistics.bytesFromClient),
      "bytesOut": .integer(statistics.bytesToClient),
      "commandsInFlight": relay.commandsInFlight.map { .integer($0) },
      "state": .string(relay.state.rawValue),
    ])
  }

  /// The name of a process, as far as it is still there and says one. Any process can call itself anything.
  private static func commandName(of process: Int32) -> String? {
    guard let file = fopen("/proc/\(process)/comm", "re") else { return nil }
    defer { fclose(file) }
    var buffer = [UInt8](repeating: 0, count: 64)
    let count = fread(&buffer, 1, buffer.count, file)
    let name = buffer[..<count].prefix { $0 != UInt8(ascii: "\n") && $0 != 0 }
    return name.isEmpty ? nil : String(decoding: name, as: UTF8.self)
  }
}
