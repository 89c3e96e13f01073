import CSystemd
import Glibc
import SystemPackage
public import SystemdEvent
public import SystemdJSON

/// One method call under way. The server answers it with what the handler returns or throws; a handler that streams or
/// upgrades does so here first.
@EventLoopActor
public final class VarlinkCall {
  /// The qualified name of the method.
  public let method: String
  /// The caller's parameters, checked against the interface.
  public let parameters: JSONVariant
  /// Who calls.
  public var peer: PeerCredentials { connection.peer }
  /// The groups of the caller beside its first, as they were when it connected. Asked for each time; none if it has gone.
  public var peerGroups: [UInt32] { callerIsGone ? [] : connection.peerGroups }
  /// The process that connected, as a pidfd: another one of the same id cannot be taken for it.
  ///
  /// - Throws: `ESRCH` when it has gone, and its process is no more; `ENOPROTOOPT` before Linux 6.5.
  public func peerProcess() throws(SystemdError) -> OwnedDescriptor {
    guard !callerIsGone else { throw SystemdError("SO_PEERPIDFD", .noSuchProcess) }
    return try connection.peerProcess()
  }

  private let connection: VarlinkConnection
  private let flags: sd_varlink_method_flags_t
  /// A reference of ours: libsystemd wants one to be held while a call is pending.
  private let link: OpaquePointer
  private var isAnswered = false
  /// Those that came with the call and were not taken.
  private var descriptors: [CInt?]

  init(_ connection: VarlinkConnection, method: String, parameters: JSONVariant, flags: sd_varlink_method_flags_t) {
    self.connection = connection
    self.method = method
    self.parameters = parameters
    self.flags = flags
    link = sd_varlink_ref(connection.link)
    // Now, while this is the link's current message: the next one brings its own.
    descriptors = (0..<max(0, sd_varlink_get_n_fds(connection.link))).map { [link = connection.link] index in
      let descriptor = sd_varlink_take_fd(link, Int(index))
      return descriptor >= 0 ? descriptor : nil
    }
  }

  isolated deinit {
    for case let descriptor? in descriptors { close(descriptor) }
    sd_varlink_unref(link)
  }

  /// The caller accepts a stream of replies.
  public var wantsMore: Bool { flags.rawValue & SD_VARLINK_METHOD_MORE.rawValue != 0 }
  /// The caller wants the connection for another protocol.
  public var wantsUpgrade: Bool { flags.rawValue & SD_VARLINK_METHOD_UPGRADE.rawValue != 0 }
  /// The caller wants no reply.
  public var isOneway: Bool { flags.rawValue & SD_VARLINK_METHOD_ONEWAY.rawValue != 0 }

  /// The descriptor that came with the call and whose index the parameter of that name tells. It can be taken once.
  ///
  /// - Throws: `org.varlink.service.InvalidParameter` if the parameter is no index, `ENXIO` if there is no such descriptor.
  public func takeDescriptor(_ parameter: String) throws -> OwnedDescriptor {
    guard let index = parameters[parameter]?.integer, (0...Int64(Int32.max)).contains(index) else {
      throw VarlinkError.invalidParameter(parameter)
    }
    guard index < descriptors.count, let descriptor = descriptors[Int(index)] else {
      throw SystemdError("no descriptor \(index) came with the call", Errno(rawValue: ENXIO))
    }
    descriptors[Int(index)] = nil
    return OwnedDescriptor(owning: descriptor)
  }

  /// Whether the caller's connection has ended.
  public var callerIsGone: Bool { connection.hasEnded }

  /// Calls `handler` when the caller's connection ends; at once, if it has.
  ///
  /// - Returns: what ``forget(_:)`` takes, for those who do not want to know any more.
  @discardableResult
  public func whenCallerGoes(_ handler: @escaping () -> Void) -> Int { connection.atEnd(handler) }

  /// Lets go of a handler of ``whenCallerGoes(_:)``: a connection may live long, and make many calls.
  public func forget(_ waiter: Int) { connection.forget(waiter) }

  /// Sends one reply of a stream.
  ///
  /// - Throws: `ENOBUFS` when the caller has left more than 16 MiB unread, `ENOTCONN` when it has gone.
  public func notify(_ parameters: JSONVariant) throws(SystemdError) {
    try check("sd_varlink_notify", sd_varlink_notify(link, parameters.pointer))
    connection.process()
  }

  /// Whether something that was sent on this connection waits here still: the caller has not read what was sent before.
  public var hasUnsent: Bool { connection.hasUnsent }

  /// Waits until all that was sent is on its way, or the caller has gone, but no longer than `limit`.
  public func sent(within limit: Duration) async { await connection.sent(within: limit) }

  /// Ends the connection without a reply: the end of a stream whose source is gone.
  public func hangUp() {
    isAnswered = true
    sd_varlink_close(link)
  }

  /// Sends the final reply, then takes the connection out of Varlink once that is out.
  ///
  /// - Returns: the raw connection; nil if the caller has gone before.
  public func upgrade(_ parameters: JSONVariant?) async throws(SystemdError) -> UpgradedConnection? {
    let upgraded = try await connection.respondAndUpgrade(parameters?.pointer)
    isAnswered = true
    guard let upgraded else { return nil }
    return UpgradedConnection(input: OwnedDescriptor(owning: upgraded.input), output: OwnedDescriptor(owning: upgraded.output))
  }

  func reply(_ parameters: JSONVariant?) {
    answer("sd_varlink_reply") { sd_varlink_reply(link, parameters?.pointer) }
  }

  func fail(_ error: VarlinkError) {
    answer("sd_varlink_error") { sd_varlink_error(link, error.name, error.parameters?.pointer) }
  }

  private func answer(_ call: String, _ send: () -> CInt) {
    guard !isAnswered, !isOneway, !callerIsGone else { return }
    isAnswered = true
    // sd_varlink_error returns the errno that the error stands for. What is left pending by a real failure would hang the
    // caller, so the connection ends instead.
    if send() < 0, call == "sd_varlink_reply" { sd_varlink_close(link) }
    connection.process()
  }
}

extension VarlinkError {
  /// The value of a parameter is not acceptable.
  @EventLoopActor public static func invalidParameter(_ name: String) -> VarlinkError {
    VarlinkError("org.varlink.service.InvalidParameter", .object(["parameter": .string(name)]))
  }
}

/// A connection that has left Varlink: raw bytes from here on. Input and output are two descriptors, of one socket or of
/// two pipes.
public struct UpgradedConnection: ~Copyable {
  public let input: OwnedDescriptor
  public let output: OwnedDescriptor
  /// Both, for a new owner of each.
  public consuming func take() -> (input: CInt, output: CInt) { (input.take(), output.take()) }
}
