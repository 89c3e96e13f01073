import Glibc
import SystemPackage
public import SystemdEvent
public import SystemdJSON
import Varlink

/// A connection to a machine's service, here or on another host. Calls are made one after another.
///
///     let connection = try await MachineConnection.connect(to: "web", on: host, within: .seconds(15))
///     let status = try await connection.call("io.systemd.MachineInstance.Describe")
@EventLoopActor
public final class MachineConnection {
  public let address: MachineAddress
  /// The process that serves the machine, as far as that is known.
  public let process: ServingProcess?
  private var client: VarlinkClient
  private let limit: Duration
  /// Whether the user may be asked to authenticate.
  private let mayAuthenticate: Bool
  /// The program that carries the connection, if the machine is on another host. It ends with this object.
  private let tunnel: SSHTunnel?

  /// Connects to a machine by its name or the path of its socket.
  ///
  /// - Parameters:
  ///   - name: a name, or a path if it has a slash.
  ///   - host: where the machine is; nil for here.
  ///   - limit: how long each answer may take.
  ///   - mayAuthenticate: see ``init(to:within:mayAuthenticate:)``; only for here.
  /// - Throws: ``ControlError``. A socket that nobody answers is told at once. Of a host that cannot be reached, the first call tells.
  public static func connect(
    to name: String, on host: SSHHost? = nil, in folders: MachineFolders = .standard(), within limit: Duration,
    mayAuthenticate: Bool = false
  ) async throws(ControlError) -> MachineConnection {
    if let host { return try MachineConnection(to: try await host.machine(name, within: limit), within: limit) }
    return try MachineConnection(to: try folders.machine(name), within: limit, mayAuthenticate: mayAuthenticate)
  }

  /// Connects to a machine.
  ///
  /// - Parameters:
  ///   - limit: how long each answer may take.
  ///   - mayAuthenticate: whether polkit may have the user authenticate for a call that could not be made otherwise, as far as its
  ///     method can be called that way. It is made a second time then.
  /// - Throws: ``ControlError``.
  public init(to address: MachineAddress, within limit: Duration, mayAuthenticate: Bool = false) throws(ControlError) {
    self.address = address
    self.limit = limit
    self.mayAuthenticate = mayAuthenticate
    let connection: OwnedDescriptor
    if let host = address.host {
      let tunnel = try SSHTunnel(to: address.socket, on: host)
      self.tunnel = tunnel
      process = address.process
      connection = tunnel.takeConnection()
    } else {
      tunnel = nil
      connection = try Self.descriptor(for: address)
      process = ServingProcess(behind: connection)
    }
    do throws(VarlinkClientError) {
      client = try VarlinkClient(connection)
    } catch {
      throw ControlError(error, machine: address.name, limit: limit)
    }
  }

  /// Connects to a socket of this host.
  private static func descriptor(for address: MachineAddress) throws(ControlError) -> OwnedDescriptor {
    do throws(SystemdError) {
      return try .connected(to: address.socket)
    } catch {
      switch error.errno {
      case .permissionDenied: throw permissionDenied(address.name)
      case .connectionRefused:
        throw ControlError(
          .unreachable, "nobody answers at \(address.socket)",
          hint: "The daemon of machine '\(address.name)' ended without removing its socket; one that starts takes its place.")
      case .resourceTemporarilyUnavailable:
        throw ControlError(.unreachable, "machine '\(address.name)' takes no connection now", hint: "Too many wait for it; try again.")
      case .noSuchFileOrDirectory:
        throw ControlError(.unreachable, "machine '\(address.name)' has just gone")
      default: throw ControlError(.unreachable, "cannot connect to \(address.socket): \(error.errno)")
      }
    }
  }

  nonisolated static func permissionDenied(_ name: String) -> ControlError {
    ControlError(.unreachable, "machine '\(name)' is another user's", hint: "Only that user and root may connect to it.")
  }

  // MARK: calls

  /// Calls a method, and waits for its answer.
  ///
  /// - Parameters:
  ///   - method: the qualified name.
  ///   - descriptors: go with the call, and stay the caller's. Not for a machine on another host.
  ///   - limit: how long the answer may take, if that is another time than for the rest.
  /// - Returns: the parameters of the reply; an empty object if it has none.
  /// - Throws: ``ControlError``. After one of kind ``ControlError/Kind/unreachable`` the connection is over.
  public func call(
    _ method: String, _ parameters: JSONVariant? = nil, descriptors: [CInt] = [], within limit: Duration? = nil
  ) async throws(ControlError) -> JSONVariant {
    precondition(descriptors.isEmpty || tunnel == nil, "descriptors go nowhere but to this host")
    let limit = limit ?? self.limit
    return try await authenticating(parameters, within: limit) { parameters, limit throws(VarlinkClientError) in
      try await client.call(method, parameters, descriptors: descriptors, within: limit)
    }
  }

  /// Calls a method that may answer more than once, and waits for its last reply, however long that takes.
  ///
  /// - Parameter onReply: gets each reply but the last.
  /// - Throws: ``ControlError``.
  public func observe(
    _ method: String, _ parameters: JSONVariant? = nil, onReply: @escaping (JSONVariant) -> Void
  ) async throws(ControlError) -> JSONVariant {
    try await authenticating(parameters, within: limit) { parameters, limit throws(VarlinkClientError) in
      try await client.observe(method, parameters, within: limit, onReply: onReply)
    }
  }

  /// Turns the connection into a QMP session: raw QMP from QEMU's greeting on.
  ///
  /// - Parameters:
  ///   - access: `full` or `query`, as `AcquireQMP` of `io.systemd.QemuMachineInstance` has it; nil for what that does by default.
  ///   - mode: `own` or `shared`, likewise.
  /// - Returns: the session's socket, non-blocking. For a machine on another host keep this object until it is closed.
  /// - Throws: ``ControlError``.
  public func acquireQMP(access: String? = nil, mode: String? = nil) async throws(ControlError) -> OwnedDescriptor {
    let parameters = JSONVariant.object(["access": access.map { .string($0) }, "mode": mode.map { .string($0) }])
    var attempts = 0
    return try await authenticating(parameters, within: limit) { parameters, limit throws(VarlinkClientError) in
      attempts += 1
      // The first has used the connection up.
      if attempts > 1 { client = try VarlinkClient(connectingTo: address.socket) }
      return try await client.upgrade("io.systemd.QemuMachineInstance.AcquireQMP", parameters, within: limit).takeDescriptor()
    }
  }

  /// How long a person may take to authenticate.
  private static let authenticationLimit = Duration.seconds(300)
  private static let authenticationRequired = "io.systemd.InteractiveAuthenticationRequired"
  /// The parameter of a call that lets polkit ask a person, by systemd's convention.
  private static let mayInteract = "allowInteractiveAuthentication"

  /// Makes a call, and once more if somebody has to authenticate for it, and may be asked.
  private func authenticating<Reply: ~Copyable>(
    _ parameters: JSONVariant?, within limit: Duration,
    _ call: (JSONVariant?, Duration) async throws(VarlinkClientError) -> Reply
  ) async throws(ControlError) -> Reply {
    let refusal: VarlinkClientError
    do throws(VarlinkClientError) { return try await call(parameters, limit) } catch { refusal = error }
    guard mayAuthenticate, case .refused(let error) = refusal, error.name == Self.authenticationRequired else {
      throw await failure(refusal, limit)
    }
    let agent = await AuthenticationAgent.start()
    defer { agent?.end() }
    do throws(VarlinkClientError) {
      let parameters = (parameters?.members ?? []).map { ($0.name, $0.value) } + [(Self.mayInteract, .boolean(true))]
      return try await call(.object(parameters), max(limit, Self.authenticationLimit))
    } catch {
      // Not every method can be called that way.
      if case .refused(let reply) = error, reply.parameters?["parameter"]?.string == Self.mayInteract {
        throw await failure(refusal, limit)
      }
      throw await failure(error, limit)
    }
  }

  /// Ends the connection. A call under way fails.
  public func close() { client.close() }

  private func failure(_ error: VarlinkClientError, _ limit: Duration) async -> ControlError {
    if let tunnel, let failure = await tunnel.failure(error) { return failure }
    return ControlError(error, machine: address.name, limit: limit)
  }
}
