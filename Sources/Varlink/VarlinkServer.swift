import CSystemd
import Glibc
public import SystemPackage
public import SystemdEvent
public import SystemdJSON

/// A Varlink service on the event loop, over sd-varlink.
///
/// Each call becomes a task of the loop; one connection has one call under way at a time, any number of connections are
/// served at once, up to ``Limits``.
@EventLoopActor
public final class VarlinkServer {
  /// What `org.varlink.service.GetInfo` tells.
  public struct Info: Sendable {
    public var vendor: String
    public var product: String
    public var version: String
    public var url: String?
    public init(vendor: String, product: String, version: String, url: String? = nil) {
      self.vendor = vendor
      self.product = product
      self.version = version
      self.url = url
    }
  }

  /// How many connections are accepted; further ones are refused by closing them. Upgraded ones do not count.
  public struct Limits: Sendable {
    public var connections: UInt32
    public var connectionsPerUser: UInt32
    /// How many of them may be of callers who may do nothing.
    public var strangers: Int
    /// How many of those one user may have, so that others can be told, too. It is more than somebody is asked about at once, so that
    /// one more is told why.
    public var strangersPerUser: Int
    public init(connections: UInt32 = 4096, connectionsPerUser: UInt32 = 1024, strangers: Int = 64, strangersPerUser: Int = 16) {
      self.strangers = strangers
      self.strangersPerUser = strangersPerUser
      self.connections = connections
      self.connectionsPerUser = connectionsPerUser
    }
  }

  /// Answers one call: the parameters of the reply, or nil for none.
  public typealias Handler = @EventLoopActor @Sendable (VarlinkCall) async throws -> JSONVariant?

  private let server: OpaquePointer
  private let errorReply: @EventLoopActor (any Error) -> VarlinkError
  private var interfaces: [VarlinkInterface] = []
  private var methods: [String: Method] = [:]
  private var connections: [OpaquePointer: VarlinkConnection] = [:]
  private let crowd = Crowd()
  /// What is to become of a call.
  public enum Admission {
    /// It may be made.
    case granted
    /// That takes a while to find out. Others do not wait for it, and whoever finds out gives up when the caller goes.
    case asked(@EventLoopActor @Sendable () async throws(VarlinkError) -> Void)
  }
  /// Looks at each call before its handler gets it, and throws if it may not be made.
  public var admission: (@EventLoopActor (VarlinkCall) throws(VarlinkError) -> Admission)?
  /// Tells who may make no call at all, by the credentials and the supplementary groups. Of these, ``Limits/strangers`` connections are
  /// accepted, and ``Limits/strangersPerUser`` of each, enough to tell them so.
  public var isStranger: (@EventLoopActor (PeerCredentials, () -> [UInt32]) -> Bool)?
  private let limits: Limits
  /// How many connections of theirs there are, by user; those of users that cannot be told count as one's.
  private var strangers: [UInt32?: Int] = [:]
  /// The sockets that it listens on. libsystemd would do that too, and never again once a connection could not be accepted because
  /// there was no descriptor for it.
  private var acceptors: [Acceptor] = []
  private var isServing = false
  /// Told when a connection was closed since there was no descriptor for it, or no memory.
  public var onRefusal: ((Errno) -> Void)?
  private struct Method {
    let kind: VarlinkInterface.MethodKind
    let handler: Handler
  }

  /// - Parameter errorReply: makes a reply of what handlers throw, unless it is a ``VarlinkError`` already.
  public init(
    _ info: Info, limits: Limits = Limits(), errorReply: @escaping @EventLoopActor (any Error) -> VarlinkError
  ) throws(SystemdError) {
    var server: OpaquePointer?
    let flags = [
      SD_VARLINK_SERVER_UPGRADABLE, SD_VARLINK_SERVER_ACCOUNT_UID, SD_VARLINK_SERVER_INHERIT_USERDATA,
      SD_VARLINK_SERVER_ALLOW_FD_PASSING_INPUT,
    ].reduce(0) { $0 | $1.rawValue }
    try check("sd_varlink_server_new", sd_varlink_server_new(&server, sd_varlink_server_flags_t(rawValue: flags)))
    guard let server else { throw SystemdError("sd_varlink_server_new", .noMemory) }
    self.server = server
    self.errorReply = errorReply
    self.limits = limits
    try check("sd_varlink_server_set_info", sd_varlink_server_set_info(server, info.vendor, info.product, info.version, info.url))
    try check("sd_varlink_server_set_connections_max", sd_varlink_server_set_connections_max(server, limits.connections))
    try check(
      "sd_varlink_server_set_connections_per_uid_max",
      sd_varlink_server_set_connections_per_uid_max(server, limits.connectionsPerUser))
    // Unretained: this object owns the server, and ends its connections before it lets go of it.
    sd_varlink_server_set_userdata(server, Unmanaged.passUnretained(self).toOpaque())
    try check(
      "sd_varlink_server_bind_connect",
      sd_varlink_server_bind_connect(server) { _, link, userdata in
        VarlinkServer.callback(link, userdata) { server, link in server.connected(link) }
      })
    try check(
      "sd_varlink_server_bind_disconnect",
      sd_varlink_server_bind_disconnect(server) { _, link, userdata in
        _ = VarlinkServer.callback(link, userdata) { server, link in server.disconnected(link) }
      })
  }

  isolated deinit {
    sd_varlink_server_set_userdata(server, nil)
    for connection in connections.values { sd_varlink_close(connection.link) }
    sd_varlink_server_unref(server)
  }

  /// Adds an interface, for introspection and for the checks of calls. Its methods are to be bound, every one.
  public func add(_ interface: VarlinkInterface) throws(SystemdError) {
    try check("sd_varlink_server_add_interface", sd_varlink_server_add_interface(server, interface.pointer))
    interfaces.append(interface)
  }

  /// Has `handler` answer the calls of `method`, a qualified name.
  ///
  /// A handler of kind `.more` or `.upgrade` is called only by callers that ask for that; others get
  /// `org.varlink.service.ExpectedMore` or `…ExpectedUpgrade`.
  public func bind(_ method: String, _ kind: VarlinkInterface.MethodKind = .plain, _ handler: @escaping Handler) throws(SystemdError) {
    methods[method] = Method(kind: kind, handler: handler)
    try check(
      "sd_varlink_server_bind_method",
      sd_varlink_server_bind_method(server, method) { link, parameters, flags, userdata in
        // Unsafe only in name: used on this thread, before this callback returns.
        nonisolated(unsafe) let parameters = parameters
        return VarlinkServer.callback(link, userdata) { server, link in
          server.dispatch(link, JSONVariant(borrowing: parameters), flags)
        }
      })
  }

  /// Makes a UNIX socket at `path` with `mode`. One that a dead server left is replaced. Who connects waits for ``serve()``.
  public func listen(on path: FilePath, mode: CInterop.Mode) throws(SystemdError) {
    try listen(on: ListeningSocket.open(at: path, mode: mode))
  }

  /// Takes over a UNIX stream socket that listens already. Its path stays when the server ends. Who connects waits for ``serve()``.
  public func listen(on socket: consuming OwnedDescriptor) throws(SystemdError) {
    let acceptor = try Acceptor(socket) { [weak self] connection in
      // Over a limit: letting go of it closes it.
      if let self { try? add(connection) }
    } onRefusal: { [weak self] reason in
      self?.onRefusal?(reason)
    }
    acceptor.isAccepting = isServing
    acceptors.append(acceptor)
  }

  private func add(_ connection: consuming OwnedDescriptor) throws(SystemdError) {
    let raw = connection.raw
    var link: OpaquePointer?
    try check("sd_varlink_server_add_connection", sd_varlink_server_add_connection(server, raw, &link))
    _ = connection.take()
    adopt(link) {}
  }

  /// Takes over a connected UNIX stream socket, whose client is served once ``serve()`` was called.
  ///
  /// - Parameter ended: called when the connection is no Varlink connection any more: it has ended, or was upgraded.
  public func serve(_ connection: consuming OwnedDescriptor, ended: @escaping () -> Void) throws(SystemdError) {
    let raw = connection.raw
    try connection.stopBlocking()
    var link: OpaquePointer?
    try check("sd_varlink_server_add_connection", sd_varlink_server_add_connection(server, raw, &link))
    _ = connection.take()
    adopt(link, ended)
  }

  /// The same for a client at two pipes. Descriptors cannot be passed there.
  ///
  /// - Parameter peer: who the client is, which a pipe does not tell.
  public func serve(
    input: consuming OwnedDescriptor, output: consuming OwnedDescriptor, peer: (process: Int32, user: UInt32, group: UInt32),
    ended: @escaping () -> Void
  ) throws(SystemdError) {
    let descriptors = (input.raw, output.raw)
    // libsystemd takes it for granted.
    try input.stopBlocking()
    try output.stopBlocking()
    var link: OpaquePointer?
    var credentials = peer
    try withUnsafePointer(to: &credentials) { credentials throws(SystemdError) in
      // Unsafe only in name: `struct ucred` of unix(7), which Glibc's module does not have, is these three in this order.
      _ = try check(
        "sd_varlink_server_add_connection_pair",
        sd_varlink_server_add_connection_pair(server, descriptors.0, descriptors.1, OpaquePointer(credentials), &link))
    }
    _ = input.take()
    _ = output.take()
    adopt(link, ended)
  }

  /// libsystemd calls back for those connections only that it accepts itself.
  private func adopt(_ link: OpaquePointer?, _ ended: @escaping () -> Void) {
    guard let link else { return ended() }
    if connections[link] == nil { connected(link) }
    // None if it could not be watched.
    if let connection = connections[link] { connection.atEnd(ended) } else { ended() }
  }

  /// Takes connections from now on, those first that have waited.
  public func serve() throws(SystemdError) {
    try check(
      "sd_varlink_server_attach_event",
      sd_varlink_server_attach_event(server, EventLoop.shared.event, Int64(SD_EVENT_PRIORITY_NORMAL)))
    isServing = true
    for acceptor in acceptors { acceptor.isAccepting = true }
  }

  /// Stops listening and ends every connection. Replies already given are sent as far as they can be without waiting.
  public func shutDown() {
    stopListening()
    for connection in connections.values { sd_varlink_close(connection.link) }
  }

  /// The numbers of the sockets that it listens on, to pass them on.
  public var listeningDescriptors: [CInt] { acceptors.map(\.descriptorNumber) }

  /// Whether connections are taken, and calls begun; those that come meanwhile wait.
  public var isAccepting = true {
    didSet {
      for acceptor in acceptors { acceptor.isAccepting = isServing && isAccepting }
      guard isAccepting else { return }
      let calls = waiting
      waiting = []
      for (call, method) in calls where !call.callerIsGone { perform(call, method) }
    }
  }

  /// Calls that came while none were begun: as many as there can be connections, each of which has one call at a time that wants a reply.
  private var waiting: [(VarlinkCall, Method)] = []

  /// Stops listening; connections go on.
  public func stopListening() {
    for acceptor in acceptors { acceptor.isAccepting = false }
    acceptors = []
  }

  /// Waits until all that was sent to callers is on its way, but no longer than `limit`.
  public func sent(within limit: Duration) async {
    let deadline = ContinuousClock.now + limit
    for connection in Array(connections.values) { await connection.sent(within: deadline - .now) }
  }

  /// How many connections there are, upgraded ones not counted.
  public var connectionCount: Int { connections.count }

  // MARK: callbacks

  /// Enters Swift from a callback of the server: finds the server behind `userdata` and runs `body` on the actor.
  private nonisolated static func callback(
    _ link: OpaquePointer?, _ userdata: UnsafeMutableRawPointer?, _ body: @EventLoopActor (VarlinkServer, OpaquePointer) -> Void
  ) -> CInt {
    guard let link, let userdata else { return 0 }
    // Unsafe only in name: libsystemd calls on the loop's thread, and `link` is valid for this call at least.
    nonisolated(unsafe) let borrowed = link
    let server = Unmanaged<VarlinkServer>.fromOpaque(userdata).takeUnretainedValue()
    EventLoopActor.assumeIsolated { body(server, borrowed) }
    return 0
  }

  /// For `sd_varlink_bind_upgrade`: the reply is out, and the descriptors are ours.
  nonisolated static let upgradeCallback: sd_varlink_upgrade_t = { link, input, output, userdata in
    VarlinkServer.callback(link, userdata) { server, link in server.upgraded(link, (input, output)) }
  }

  private func connected(_ link: OpaquePointer) {
    let connection = VarlinkConnection(link)
    connections[link] = connection
    crowd.enter()
    if let isStranger, isStranger(connection.peer, { connection.peerGroups }) {
      let user = connection.peer.user
      strangers[user, default: 0] += 1
      connection.atEnd { [weak self] in self?.strangerLeft(user) }
      guard strangers[user, default: 0] <= limits.strangersPerUser, strangers.values.reduce(0, +) <= limits.strangers else {
        sd_varlink_close(link)
        return
      }
    }
    // It cannot be served.
    do throws(SystemdError) { try connection.drive() } catch { sd_varlink_close(link) }
  }

  private func strangerLeft(_ user: UInt32?) {
    strangers[user, default: 0] -= 1
    if strangers[user] == 0 { strangers[user] = nil }
  }

  private func dispatch(_ link: OpaquePointer, _ parameters: JSONVariant, _ flags: sd_varlink_method_flags_t) {
    var name: UnsafePointer<CChar>?
    guard sd_varlink_get_current_method(link, &name) >= 0, let name, let connection = connections[link],
      let method = methods[String(cString: name)]
    else { return }
    let call = VarlinkCall(connection, method: String(cString: name), parameters: parameters, flags: flags)
    do throws(VarlinkError) {
      if let admission, case .asked(let answer) = try admission(call) {
        startTask {
          do throws(VarlinkError) { try await answer() } catch { return call.fail(error) }
          if !call.callerIsGone { self.perform(call, method) }
        }
        return
      }
    } catch {
      return call.fail(error)
    }
    perform(call, method)
  }

  /// Has a call that may be made answered by its handler.
  private func perform(_ call: VarlinkCall, _ method: Method) {
    guard isAccepting || waiting.count >= limits.connections else { return waiting.append((call, method)) }
    switch method.kind {
    case .more where !call.wantsMore: return call.fail(.expectedMore)
    case .upgrade where !call.wantsUpgrade: return call.fail(.expectedUpgrade)
    default: break
    }
    startTask {
      do {
        call.reply(try await method.handler(call))
      } catch {
        call.fail(error as? VarlinkError ?? self.errorReply(error))
      }
    }
  }

  /// Connections that have left the table with an upgrade under way; the upgrade callback comes in the same dispatch.
  private var upgrading: [OpaquePointer: VarlinkConnection] = [:]

  private func disconnected(_ link: OpaquePointer) {
    guard let connection = connections.removeValue(forKey: link) else { return }
    connection.didEnd()
    crowd.leave()
    if connection.isUpgrading {
      upgrading[link] = connection
      connection.atUpgradeEnd { [weak self] in self?.upgrading[link] = nil }
    }
  }

  private func upgraded(_ link: OpaquePointer, _ descriptors: VarlinkConnection.Upgraded) {
    guard let connection = upgrading[link] else {
      close(descriptors.input)
      close(descriptors.output)
      return
    }
    connection.finishUpgrade(descriptors)
  }
}
