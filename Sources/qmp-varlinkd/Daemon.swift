import ArgumentParser
import Bridge
import Glibc
import Logging
import Machine
import QMP
import SystemPackage
import SystemdJSON
import SystemdEvent
import Varlink

/// One run of the daemon, from its command line to its exit status.
@EventLoopActor
final class Daemon {
  /// Gets hold of the machine, given the runtime directory; gives up when the promise is fulfilled.
  typealias MachineSource = @EventLoopActor @Sendable (FilePath, Logger, Promise<Void>) async throws(MachineError) -> Machine

  /// Those that are not QEMU's own, which is 1 when it does not start. 64, for a wrong command line, is the argument parser's.
  private enum Status {
    /// QEMU's own too when it does not start.
    static let refused: CInt = 1
    static let guestPanicked: CInt = 3
    static let connectionLost: CInt = 69
    static let failure: CInt = 70
  }
  /// What asks the daemon to stop. A terminal that closes is among it: the machine would be left to itself.
  private nonisolated static let stopSignals = [SIGTERM, SIGINT, SIGHUP]
  /// How long the first callers have QEMU to themselves.
  private static let firstCalls = Duration.milliseconds(100)
  /// How long sessions may take to deliver what they have when the machine has gone.
  private static let farewell = Duration.seconds(3)
  /// How long sessions may take to come to rest when the machine stays.
  private static let detachLimit = Duration.seconds(10)

  private let options: ServiceOptions
  private let sockets: PassedSockets
  private let stopLimits: Machine.StopLimits?
  private let sessionLimits: Sessions.Limits
  private let authorisation: Authorisation
  private let logger: Logger
  private let stopRequested = Promise<Void>()
  private let hurry = Promise<Void>()
  private var signals: [EventSource] = []

  private init(
    _ options: ServiceOptions, _ sockets: PassedSockets, _ stopLimits: Machine.StopLimits?, _ policy: Policy, _ logger: Logger
  ) {
    self.options = options
    self.sockets = sockets
    authorisation = Authorisation(policy, logger: logger)
    sessionLimits = Sessions.Limits(
      total: options.maxSessions, perUser: options.maxSessionsPerUser, unread: options.unreadLimit << 20,
      parkAfter: options.parkAfter.duration, activeMonitors: options.maxActiveMonitors, audits: options.audit)
    self.stopLimits = stopLimits
    self.logger = logger
  }

  /// Serves a machine until it ends or a signal comes.
  ///
  /// - Parameter stopLimits: how to end the machine with the daemon; nil leaves it running.
  /// - Throws: the exit status, if it is not 0.
  nonisolated static func run(_ options: ServiceOptions, stopLimits: Machine.StopLimits?, _ source: @escaping MachineSource) throws {
    useOneHeap()
    // Before anything is opened.
    let passed = Result { try PassedSockets.take() }
    // Before anything can make a thread: the loop gets these by signalfd.
    var blocked = sigset_t()
    sigemptyset(&blocked)
    for signal in Self.stopSignals + [SIGCHLD] { sigaddset(&blocked, signal) }
    sigprocmask(SIG_BLOCK, &blocked, nil)
    signal(SIGPIPE, SIG_IGN)
    // Each session takes three descriptors, each connection one; the soft limit of most systems is for programs that use select(2).
    var descriptors = rlimit()
    if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &descriptors) == 0 {
      descriptors.rlim_cur = descriptors.rlim_max
      setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &descriptors)
    }

    let logger = makeLogger(level: options.logLevel, machine: options.machine)
    let sockets: PassedSockets
    do {
      sockets = try passed.get()
      guard options.register != .yes || sockets.isEmpty || sockets.path != nil else {
        throw PassedSockets.Failure(description: "--register=yes: what was passed is no socket with a path, which others could connect to")
      }
    } catch {
      logger.error("\(error)")
      throw ExitCode(Status.failure)
    }
    let policy: Policy
    do throws(PolicyFile.Failure) { policy = try PolicyFile.read(options.policy, owner: geteuid()) } catch {
      logger.error("\(error)")
      throw ExitCode(Status.failure)
    }
    let directory: RuntimeDirectory
    do throws(RuntimeDirectory.Failure) {
      let location = try RuntimeDirectory.location(
        machine: options.machine, option: options.runtimeDirectory, scope: options.scope)
      directory = try RuntimeDirectory(location, machine: options.machine)
    } catch {
      logger.error("\(error)")
      throw ExitCode(Status.failure)
    }
    let socket = sockets.isEmpty ? directory.controlSocket : sockets.path
    let folder = directory.path
    startTask {
      let daemon = Daemon(options, sockets, stopLimits, policy, logger)
      EventLoop.shared.exit(await daemon.serve(source, in: folder, socket: socket))
    }
    let status = try EventLoop.shared.run()
    directory.remove(withSocket: sockets.isEmpty)
    if status != 0 { throw ExitCode(status) }
  }

  private func serve(_ source: @escaping MachineSource, in folder: FilePath, socket: FilePath?) async -> CInt {
    do {
      for signal in Self.stopSignals {
        signals.append(try EventSource.signal(signal) { [weak self] in self?.signalled() })
      }
      let started = Promise<Result<Machine, MachineError>>()
      startTask { [logger, stopRequested] in
        do throws(MachineError) { started.fulfil(.success(try await source(folder, logger, stopRequested))) } catch {
          started.fulfil(.failure(error))
        }
      }
      // Once QEMU is on its way there is time for what does not need it.
      await Task.yield()
      let server = Result { try makeServer(at: socket) }
      let machine: Machine
      do throws(MachineError) {
        machine = try await started.value.get()
      } catch {
        if stopRequested.result != nil { return 0 }
        logger.error("\(error)")
        // A QEMU that only prints something (`-- -version`) ends with 0 instead of starting.
        if case .startFailed(let status, _) = error { return max(Self.exitStatus(status), Status.refused) }
        if case .option(let failure) = error, failure.isRefusal { return Status.refused }
        return Status.failure
      }
      do {
        return try await serve(machine, on: server.get(), socket: socket)
      } catch {
        // A machine that nobody can reach is not left running.
        if let stopLimits {
          hurry.fulfil()
          await machine.stop(stopLimits, hurry: hurry)
        }
        throw error
      }
    } catch {
      logger.error("\(error)")
      return Status.failure
    }
  }

  /// Makes the socket, unless there are others, at which callers wait until there is a machine.
  private func makeServer(at socket: FilePath?) throws -> VarlinkServer {
    let info = VarlinkServer.Info(vendor: "qmp-varlink", product: "qmp-varlinkd", version: programVersion)
    let server = try VarlinkServer(info, limits: connectionLimits(), errorReply: varlinkError(for:))
    try ServedInterfaces.add(to: server)
    authorisation.guards(server)
    if let socket, sockets.isEmpty {
      try server.listen(on: socket, mode: authorisation.socketMode)
    } else {
      try sockets.listen(server)
    }
    return server
  }

  private func serve(_ machine: Machine, on server: VarlinkServer, socket: FilePath?) async throws -> CInt {
    let sessions = Sessions(machine: machine, limits: sessionLimits, logger: logger)
    var shutdown: QMPEvent?
    let subscription = machine.subscribe { if $0.name == "SHUTDOWN" { shutdown = $0 } }
    try MachineInstanceService.add(to: server, machine: machine, unreadLimit: sessionLimits.unread)
    try QemuMachineInstanceService.add(to: server, sessions: sessions)
    try SessionsService.add(to: server, sessions: sessions)
    let monitors = AddedMonitors(
      machine: machine, sessions: sessions, limit: options.maxMonitors, authorisation: authorisation, logger: logger)
    try MonitorsService.add(to: server, monitors: monitors)
    try server.serve()
    let connectionsEnded = Promise<Void>()
    try sockets.serve(server) { connectionsEnded.fulfil() }
    let serving = "machine \(machine.name), QEMU \(machine.greeting.version)"
    logger.info("serving \(serving) at \(socket?.string ?? (sockets.areConnectionsOnly ? "one connection" : "a socket without a path"))")

    if sockets.areConnectionsOnly {
      // Nobody else can come.
      startTask { [stopRequested] in
        await connectionsEnded.value
        await sessions.finished()
        if stopRequested.result == nil { stopRequested.fulfil() }
      }
    }
    let over = Promise<Void>()
    machine.disconnected.whenFulfilled { _ in over.fulfil() }
    stopRequested.whenFulfilled { over.fulfil() }
    let registration = await MachineRegistration(of: machine, options, control: socket, ownsMachine: stopLimits != nil, logger: logger)
    try await registration.register(cancelled: over)
    if over.result == nil { announce(serving, machine, server) }
    await over.value

    let wasAsked = machine.disconnected.result == nil
    if wasAsked {
      ServiceManager.stopping("Stopping")
      if let stopLimits {
        await machine.stop(stopLimits, hurry: hurry)
      } else {
        server.stopListening()
        await monitors.stop(within: Self.detachLimit)
        await sessions.stop(within: Self.detachLimit)
        await machine.detach()
      }
    }
    // Callers in flight have their errors by now, and sessions their ends; what can be sent goes out first.
    server.stopListening()
    await sessions.finished(within: Self.farewell)
    await idle()
    await server.sent(within: Self.farewell)
    machine.unsubscribe(subscription)
    server.shutDown()

    let status = await end(of: machine, shutdown, wasAsked: wasAsked)
    // Last: until QEMU has ended, machined may end what is in a unit that it made.
    await registration.unregister()
    return status
  }

  /// Tells who waits for the daemon that it serves.
  private func announce(_ status: String, _ machine: Machine, _ server: VarlinkServer) {
    ServiceManager.ready("Serving \(status)", leader: machine.qemuProcess)
    // Beside the rest, and a moment later: QEMU takes some 50 ms to describe itself, and who waited for READY is about to call.
    startTask { [logger, authorisation] in
      _ = await Promise<Void>().value(within: Self.firstCalls)
      if let modes = try? await machine.sessionModes() { logger.info("\(modes)") }
      let isServed = await QMPService.add(to: server, machine: machine, authorisation: authorisation, logger: logger)
      ServiceManager.status("Serving \(status), \(isServed ? "with" : "without") \(QMPService.name)")
    }
  }

  /// Waits until a QEMU of ours has ended.
  ///
  /// - Returns: the exit status that says how the machine ended.
  private func end(of machine: Machine, _ shutdown: QMPEvent?, wasAsked: Bool) async -> CInt {
    // QEMU itself counts that as a success.
    let guestPanicked = shutdown?.data?["reason"]?.string == "guest-panic"
    if guestPanicked { logger.error("the guest panicked") }
    if !(wasAsked && stopLimits == nil), let status = await machine.processEnd() {
      logger.notice("QEMU \(status)")
      if guestPanicked, status == .exited(0) { return Status.guestPanicked }
      return Self.exitStatus(status)
    }
    if guestPanicked { return Status.guestPanicked }
    if wasAsked || shutdown != nil { return 0 }
    logger.error("the connection to QEMU was lost")
    return Status.connectionLost
  }

  /// As many connections as there are descriptors for, beside those of the sessions and a few of our own.
  private func connectionLimits() -> VarlinkServer.Limits {
    var limits = VarlinkServer.Limits()
    var descriptors = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &descriptors) == 0 else { return limits }
    let left = Int(clamping: descriptors.rlim_cur) - 5 * sessionLimits.total - 4 * options.maxMonitors - 64
    limits.connections = UInt32(max(16, min(Int(limits.connections), left)))
    limits.connectionsPerUser = min(limits.connectionsPerUser, limits.connections)
    return limits
  }

  private func signalled() {
    if stopRequested.result == nil { stopRequested.fulfil() } else { hurry.fulfil() }
  }

  /// A shell's way to tell a signal from a status.
  private static func exitStatus(_ status: ExitStatus) -> CInt {
    switch status {
    case .exited(let status): status
    case .signaled(let signal): 128 + signal
    }
  }
}
