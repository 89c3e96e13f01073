public import Logging
public import SystemdEvent
public import Varlink

/// Decides on every call and every connection, by a policy, and logs what it refuses.
@EventLoopActor
public final class Authorisation {
  private let policy: Policy
  private let logger: Logger
  /// Which QMP command a method of the interface is that is made of QEMU's schema.
  private var commands: [String: String] = [:]

  public init(_ policy: Policy, logger: Logger) {
    self.policy = policy
    self.logger = logger
  }

  /// Has each call on `server` decided on from now on.
  public func guards(_ server: VarlinkServer) {
    server.admission = { [self] call throws(VarlinkError) in try check(call) }
    server.isStranger = { [policy] peer, groups in !policy.knows(user: peer.user, groups: { [peer.group].compactMap { $0 } + groups() }) }
  }

  /// The mode of a socket that everybody who is granted something can connect to. Who may do what is decided on by call.
  public var socketMode: UInt32 { policy.grantsOthers ? 0o666 : 0o600 }

  /// Takes in which commands the methods are of the interface that is made of QEMU's schema.
  func add(_ commands: [String: String]) { self.commands.merge(commands) { $1 } }

  /// - Throws: `org.varlink.service.PermissionDenied`.
  private func check(_ call: VarlinkCall) throws(VarlinkError) {
    let needed = RequiredPrivilege.of(call.method, call.parameters) { commands[$0] }
    if let needed, permits(needed, call.peer, groups: { call.peerGroups }) { return }
    refuse(call.method, needed, call.peer)
    throw VarlinkError("org.varlink.service.PermissionDenied")
  }

  /// Whether a client may speak on a monitor that was added for whoever comes.
  func admits(_ client: borrowing OwnedDescriptor, to monitor: String) -> Bool {
    let peer = PeerCredentials(of: client)
    let raw = client.raw
    if permits(.full, peer, groups: { PeerCredentials.supplementaryGroups(of: raw) }) { return true }
    refuse("the monitor \(monitor)", .full, peer)
    return false
  }

  private func permits(_ privilege: Privilege, _ peer: PeerCredentials, groups: () -> [UInt32]) -> Bool {
    policy.permits(privilege, user: peer.user) { [peer.group].compactMap { $0 } + groups() }
  }

  private func refuse(_ what: String, _ privilege: Privilege?, _ peer: PeerCredentials) {
    var metadata: Logger.Metadata = [
      "method": "\(what)", "uid": "\(peer.user.map(String.init) ?? "unknown")", "gid": "\(peer.group.map(String.init) ?? "unknown")",
      "pid": "\(peer.process ?? 0)",
    ]
    if let privilege { metadata["class"] = "\(privilege)" }
    logger.warning("refused", metadata: metadata)
  }
}
