public import Logging
public import SystemdEvent
public import Varlink

/// Decides on every call and every connection, by a policy, and where that grants nothing by polkit, if there is one. What is refused is
/// logged, and what polkit permits.
@EventLoopActor
public final class Authorisation {
  private let policy: Policy
  private let polkit: Polkit?
  private let logger: Logger
  /// Which QMP command a method of the interface is that is made of QEMU's schema.
  private var commands: [String: String] = [:]

  /// - Parameter polkit: who is asked about what the policy does not grant; nil for nobody.
  public init(_ policy: Policy, polkit: Polkit? = nil, logger: Logger) {
    self.policy = policy
    self.polkit = polkit
    self.logger = logger
  }

  /// Has each call on `server` decided on from now on.
  public func guards(_ server: VarlinkServer) {
    server.admission = { [self] call throws(VarlinkError) in try check(call) }
    server.isStranger = { [policy] peer, groups in !policy.knows(user: peer.user, groups: { [peer.group].compactMap { $0 } + groups() }) }
  }

  /// The mode of a socket that everybody who is granted something can connect to. Who may do what is decided on by call.
  public var socketMode: UInt32 { policy.grantsOthers || polkit != nil ? 0o666 : 0o600 }

  /// Takes in which commands the methods are of the interface that is made of QEMU's schema.
  func add(_ commands: [String: String]) { self.commands.merge(commands) { $1 } }

  /// - Throws: `org.varlink.service.PermissionDenied`.
  private func check(_ call: VarlinkCall) throws(VarlinkError) -> VarlinkServer.Admission {
    let needed = RequiredPrivilege.of(call.method, call.parameters) { commands[$0] }
    if let needed, permits(needed, call.peer, groups: { call.peerGroups }) { return .granted }
    if let needed, let polkit {
      return .asked { [self] () throws(VarlinkError) in try await ask(polkit, needed, call) }
    }
    refuse(call.method, needed, call.peer)
    throw Self.permissionDenied
  }

  /// - Throws: `org.varlink.service.PermissionDenied`, or that there is somebody to be asked for a password.
  private func ask(_ polkit: Polkit, _ privilege: Privilege, _ call: VarlinkCall) async throws(VarlinkError) {
    switch await polkit.ask(privilege, for: call) {
    case .authorised:
      logger.notice("permitted", metadata: metadata(call.method, privilege, call.peer, by: .polkit))
    case .challenge:
      refuse(call.method, privilege, call.peer, by: .polkit, "authentication is needed")
      throw Self.authenticationRequired
    case .denied(let reason):
      refuse(call.method, privilege, call.peer, by: .polkit, reason)
      throw Self.permissionDenied
    case .absent:
      refuse(call.method, privilege, call.peer)
      throw Self.permissionDenied
    case .callerGone:
      refuse(call.method, privilege, call.peer, by: .polkit, "the caller has gone")
      throw Self.permissionDenied
    }
  }

  private static let permissionDenied = VarlinkError("org.varlink.service.PermissionDenied")
  /// systemd's, for calls that may be made once somebody has authenticated.
  private static let authenticationRequired = VarlinkError("io.systemd.InteractiveAuthenticationRequired")

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

  /// Who decided.
  private enum Judge: String {
    case policy, polkit
  }

  private func refuse(
    _ what: String, _ privilege: Privilege?, _ peer: PeerCredentials, by judge: Judge = .policy, _ reason: String? = nil
  ) {
    var metadata = metadata(what, privilege, peer, by: judge)
    if let reason { metadata["reason"] = "\(reason)" }
    logger.warning("refused", metadata: metadata)
  }

  private func metadata(_ what: String, _ privilege: Privilege?, _ peer: PeerCredentials, by judge: Judge) -> Logger.Metadata {
    var metadata: Logger.Metadata = [
      "method": "\(what)", "uid": "\(peer.user.map(String.init) ?? "unknown")", "gid": "\(peer.group.map(String.init) ?? "unknown")",
      "pid": "\(peer.process ?? 0)", "by": "\(judge)",
    ]
    if let privilege { metadata["class"] = "\(privilege)" }
    return metadata
  }
}
