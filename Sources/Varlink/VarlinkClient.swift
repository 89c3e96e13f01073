import CSystemd
public import SystemPackage
public import SystemdEvent
public import SystemdJSON

/// How a call to a service can fail.
public enum VarlinkClientError: Error, Sendable {
  /// There is no connection to be had: nobody listens, or the service takes no more.
  case connect(SystemdError)
  /// The service answered with an error.
  case refused(VarlinkError)
  /// The connection ended before the answer, or what came was not Varlink.
  case disconnected
  /// The answer did not come in time.
  case timedOut
  /// The caller closed the client, or its task was cancelled.
  case closed
}

extension VarlinkClientError: @EventLoopActor CustomStringConvertible {
  @EventLoopActor public var description: String {
    switch self {
    case .connect(let error): "\(error.errno)"
    case .refused(let error): error.parameters.map { "\(error.name) \($0)" } ?? error.name
    case .disconnected: "the service hung up"
    case .timedOut: "the service did not answer in time"
    case .closed: "given up"
    }
  }
}

/// A connection to a Varlink service, over sd-varlink.
///
/// Calls are made one after another. A connection on which one failed to be answered is over: what comes late must not be taken for
/// the answer to the next.
@EventLoopActor
public final class VarlinkClient {
  let link: OpaquePointer
  private var pending: CheckedContinuation<Result<JSONVariant, VarlinkClientError>, Never>?
  /// Gets the replies that others follow.
  private var onContinued: ((JSONVariant) -> Void)?
  private var firstReplyTimer: EventSource?
  private(set) var isClosed = false

  /// Connects to the service at a UNIX socket. This does not wait: a service that is not at it yet gets the calls later.
  ///
  /// - Throws: ``VarlinkClientError/connect(_:)``.
  public convenience init(connectingTo path: FilePath) throws(VarlinkClientError) {
    var link: OpaquePointer?
    let result = sd_varlink_connect_address(&link, path.string)
    try self.init("sd_varlink_connect_address", result, link)
  }

  /// Speaks to a service over a stream socket that is connected already.
  ///
  /// - Throws: ``VarlinkClientError/connect(_:)``.
  public convenience init(_ connection: consuming OwnedDescriptor) throws(VarlinkClientError) {
    var link: OpaquePointer?
    let result = sd_varlink_connect_fd(&link, connection.raw)
    // The link has it, if there is one.
    if result >= 0 { _ = connection.take() }
    try self.init("sd_varlink_connect_fd", result, link)
  }

  /// Takes over what a call into libsystemd gave.
  private init(_ call: String, _ result: CInt, _ link: OpaquePointer?) throws(VarlinkClientError) {
    do throws(SystemdError) {
      try check(call, result)
      guard let link else { throw SystemdError(call, .noMemory) }
      self.link = link
    } catch {
      throw .connect(error)
    }
    do throws(SystemdError) {
      try check("sd_varlink_bind_reply", sd_varlink_bind_reply(link, Self.replyCallback))
      try check(
        "sd_varlink_attach_event", sd_varlink_attach_event(link, EventLoop.shared.event, Int64(SD_EVENT_PRIORITY_NORMAL)))
    } catch {
      throw .connect(error)
    }
    // Unretained: this object owns the link, and closes it before it goes.
    sd_varlink_set_userdata(link, Unmanaged.passUnretained(self).toOpaque())
  }

  isolated deinit {
    sd_varlink_set_userdata(link, nil)
    sd_varlink_close_unref(link)
  }

  /// Calls a method, and waits for its answer.
  ///
  /// - Parameters:
  ///   - method: the qualified name.
  ///   - descriptors: go with the call; they stay the caller's. Only a UNIX socket can carry any.
  ///   - limit: how long the answer may take.
  /// - Returns: the parameters of the reply; an empty object if it has none.
  /// - Throws: ``VarlinkClientError``. Cancellation of the task closes the connection and throws ``VarlinkClientError/closed``; whether
  ///   the service does what it was asked is not known then, nor after ``VarlinkClientError/timedOut``.
  public func call(
    _ method: String, _ parameters: JSONVariant? = nil, descriptors: [CInt] = [], within limit: Duration
  ) async throws(VarlinkClientError) -> JSONVariant {
    try await replies { [link] in
      // To libsystemd 0 would mean its default.
      var result = sd_varlink_set_relative_timeout(link, max(1, limit.microseconds))
      if !descriptors.isEmpty, result >= 0 { result = sd_varlink_set_allow_fd_passing_output(link, 1) }
      for descriptor in descriptors where result >= 0 { result = sd_varlink_push_dup_fd(link, descriptor) }
      return result < 0 ? result : sd_varlink_invoke(link, method, parameters?.pointer)
    }
  }

  /// Calls a method that may answer more than once, and waits for its last reply, however long that takes.
  ///
  /// - Parameters:
  ///   - method: the qualified name.
  ///   - limit: how long the first reply may take.
  ///   - onReply: gets the parameters of each reply but the last.
  /// - Returns: the parameters of the last reply; an empty object if it has none.
  /// - Throws: ``VarlinkClientError``. Cancellation of the task closes the connection and throws ``VarlinkClientError/closed``.
  public func observe(
    _ method: String, _ parameters: JSONVariant? = nil, within limit: Duration, onReply: @escaping (JSONVariant) -> Void
  ) async throws(VarlinkClientError) -> JSONVariant {
    do throws(SystemdError) {
      firstReplyTimer = try .timer(after: limit) { [weak self] in self?.end(.timedOut) }
    } catch {
      throw .connect(error)
    }
    defer { firstReplyTimer.cancel() }
    onContinued = onReply
    defer { onContinued = nil }
    return try await replies { [link] in
      // For ever.
      let result = sd_varlink_set_relative_timeout(link, .max)
      return result < 0 ? result : sd_varlink_observe(link, method, parameters?.pointer)
    }
  }

  /// Sends a call, and waits for its last reply.
  private func replies(to send: () -> CInt) async throws(VarlinkClientError) -> JSONVariant {
    precondition(pending == nil, "a call is under way")
    guard !isClosed, !Task.isCancelled else { throw .closed }
    let result = await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        pending = continuation
        if send() < 0 { end(.disconnected) }
      }
    } onCancel: {
      startTask { self.close() }
    }
    return try result.get()
  }

  /// Ends the connection. A call under way fails with ``VarlinkClientError/closed``.
  public func close() { end(.closed) }

  func end(_ error: VarlinkClientError) {
    if !isClosed {
      isClosed = true
      sd_varlink_close(link)
    }
    finish(.failure(error))
  }

  private func finish(_ result: Result<JSONVariant, VarlinkClientError>) {
    pending?.resume(returning: result)
    pending = nil
  }

  private nonisolated static let replyCallback: sd_varlink_reply_t = { _, parameters, error, flags, userdata in
    guard let userdata else { return 0 }
    let client = Unmanaged<VarlinkClient>.fromOpaque(userdata).takeUnretainedValue()
    let error = error.map { String(cString: $0) }
    // Unsafe only in name: libsystemd calls on the loop's thread, and the reply is valid for this call.
    nonisolated(unsafe) let parameters = parameters
    EventLoopActor.assumeIsolated { client.replied(JSONVariant(borrowing: parameters), error: error, flags) }
    return 0
  }

  private func replied(_ parameters: JSONVariant, error: String?, _ flags: sd_varlink_reply_flags_t) {
    guard let error else {
      let parameters = parameters.isNull ? .object([:]) : parameters
      firstReplyTimer.cancel()
      guard flags.rawValue & SD_VARLINK_REPLY_CONTINUES.rawValue != 0 else { return finish(.success(parameters)) }
      onContinued?(parameters)
      return
    }
    // These are libsystemd's own words for what became of the connection, not the service's.
    guard flags.rawValue & SD_VARLINK_REPLY_LOCAL.rawValue == 0 else {
      return end(error == SD_VARLINK_ERROR_TIMEOUT ? .timedOut : .disconnected)
    }
    // libsystemd makes an empty object of parameters that are missing.
    let isEmpty = parameters.members?.isEmpty ?? true
    finish(.failure(.refused(VarlinkError(error, isEmpty ? nil : parameters))))
  }
}
