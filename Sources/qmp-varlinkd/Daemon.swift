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
  /// What asks it to hand over to another run of itself.
  private nonisolated static let successionSignal = SIGUSR2
  /// How long what is under way may take to be over, before there is no handover.
  private static let successionLimit = Duration.seconds(15)
  /// How long the machine is served before a handover that did not come about is tried again, and for how long it is, for a service manager
  /// that waits for it: as long as that does with the units here.
  private static let successionPause = Duration.seconds(5)
  private static let successionPatience = Duration.seconds(120)
  /// How long sessions have to get out of the middle of something.
  private static let successionRetry = Duration.milliseconds(20)
  /// With fewer there would not even be a loop in which to say what went wrong.
  private nonisolated static let fewestDescriptors: rlim_t = 16
  /// How long the first callers have QEMU to themselves.
  private static let firstCalls = Duration.milliseconds(100)
  /// How long sessions may take to deliver what they have when the machine has gone.
  private static let farewell = Duration.seconds(3)
  /// How long sessions may take to come to rest when the machine stays.
  private static let detachLimit = Duration.seconds(10)

  private let options: ServiceOptions
  private var sockets: PassedSockets
  private let stopLimits: Machine.StopLimits?
  /// Whether the source of the machine finds one that another daemon has left.
  private let findsMachine: Bool
  private let sessionLimits: Sessions.Limits
  private let authorisation: Authorisation
  private let logger: Logger
  private let stopRequested = Promise<Void>()
  private let hurry = Promise<Void>()
  /// Fulfilled when another run of the daemon is to go on with this one's work.
  private var successionRequested = Promise<Void>()
  private var signals: [EventSource] = []

  private init(
    _ options: ServiceOptions, _ sockets: PassedSockets, _ stopLimits: Machine.StopLimits?, _ findsMachine: Bool, _ policy: Policy,
    _ logger: Logger
  ) {
    self.options = options
    self.sockets = sockets
    let polkit = options.asksPolkit ? Polkit(machine: "\(options.machine)", logger: logger) : nil
    authorisation = Authorisation(policy, polkit: polkit, logger: logger)
    sessionLimits = Sessions.Limits(
      total: options.maxSessions, perUser: options.maxSessionsPerUser, unread: options.unreadLimit << 20,
      parkAfter: options.parkAfter.duration, activeMonitors: options.maxActiveMonitors, audits: options.audit)
    self.stopLimits = stopLimits
    self.findsMachine = findsMachine
    self.logger = logger
  }

  /// Serves a machine until it ends or a signal comes.
  ///
  /// - Parameters:
  ///   - stopLimits: how to end the machine with the daemon; nil leaves it running.
  ///   - findsMachine: whether `source` finds a machine that another daemon has left.
  /// - Throws: the exit status, if it is not 0.
  nonisolated static func run(
    _ options: ServiceOptions, stopLimits: Machine.StopLimits?, findsMachine: Bool = false, _ source: @escaping MachineSource
  ) throws {
    useOneHeap()
    // Before anything is opened.
    let passed = Result { try PassedSockets.take() }
    // Before anything can make a thread: the loop gets these by signalfd.
    var blocked = sigset_t()
    sigemptyset(&blocked)
    for signal in Self.stopSignals + [SIGCHLD, Self.successionSignal] { sigaddset(&blocked, signal) }
    sigprocmask(SIG_BLOCK, &blocked, nil)
    signal(SIGPIPE, SIG_IGN)
    // Each session takes three descriptors, each connection one; the soft limit of most systems is for programs that use select(2).
    var descriptors = rlimit()
    if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &descriptors) == 0 {
      descriptors.rlim_cur = descriptors.rlim_max
      setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &descriptors)
    }

    let logger = makeLogger(level: options.logLevel, machine: options.machine)
    guard descriptors.rlim_cur >= Self.fewestDescriptors else {
      logger.error("at most \(descriptors.rlim_cur) descriptors are allowed (RLIMIT_NOFILE): it takes \(Self.fewestDescriptors) to start")
      throw ExitCode(Status.failure)
    }
    let sockets: PassedSockets
    let inheritance: Succession.Inheritance?
    do {
      (sockets, inheritance) = try passed.get()
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
      let daemon = Daemon(options, sockets, stopLimits, findsMachine, policy, logger)
      EventLoop.shared.exit(await daemon.serve(source, inheritance, in: folder, socket: socket))
    }
    let status = try EventLoop.shared.run()
    directory.remove(withSocket: sockets.isEmpty && inheritance?.arePassed != true)
    if status != 0 { throw ExitCode(status) }
  }

  private func serve(
    _ source: @escaping MachineSource, _ inheritance: Succession.Inheritance?, in folder: FilePath, socket: FilePath?
  ) async -> CInt {
    do {
      for signal in Self.stopSignals {
        signals.append(try EventSource.signal(signal) { [weak self] in self?.signalled() })
      }
      signals.append(try EventSource.signal(Self.successionSignal) { [weak self] in self?.successionRequested.fulfil() })
      if let taken = try inherit(inheritance, socket) {
        logger.notice("took over from a run before")
        return try await serve(taken.machine, on: taken.server, socket: taken.socket, taken.handover)
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
        // What was being started has ended then; what a run before has left, and does not answer, has not.
        let isLeft = if findsMachine, case .qmp = error { true } else { false }
        if stopRequested.result != nil, !isLeft { return 0 }
        logger.error("\(error)")
        // A QEMU that only prints something (`-- -version`) ends with 0 instead of starting.
        if case .startFailed(let status, _) = error { return max(Self.exitStatus(status), Status.refused) }
        if case .option(let failure) = error, failure.isRefusal { return Status.refused }
        return Status.failure
      }
      do {
        return try await serve(machine, on: server.get(), socket: socket, nil)
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
    server.onRefusal = { [logger] in logger.warning("a connection was closed: there is no descriptor for it (\($0))") }
    if !sockets.isEmpty {
      try sockets.listen(server)
    } else if let socket {
      try server.listen(on: socket, mode: authorisation.socketMode)
    }
    return server
  }

  private func serve(_ machine: Machine, on server: VarlinkServer, socket: FilePath?, _ handover: Handover?) async throws -> CInt {
    let sessions = Sessions(machine: machine, limits: sessionLimits, logger: logger)
    var shutdown: QMPEvent?
    let subscription = machine.subscribe { if $0.name == "SHUTDOWN" { shutdown = $0 } }
    try MachineInstanceService.add(to: server, machine: machine, unreadLimit: sessionLimits.unread)
    try QemuMachineInstanceService.add(to: server, sessions: sessions)
    try SessionsService.add(to: server, sessions: sessions)
    let monitors = AddedMonitors(
      machine: machine, sessions: sessions, limit: options.maxMonitors, authorisation: authorisation, logger: logger)
    try MonitorsService.add(to: server, monitors: monitors)
    if let handover {
      sessions.goOn(with: handover.value["sessions"] ?? .null, handover)
      monitors.goOn(with: handover.value["monitors"] ?? .null, handover)
      machine.goOn()
    }
    let registered = handover?.value["registered"]?.elements?.compactMap(\.string).compactMap(RuntimeScope.init(rawValue:))
    handover?.close()
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
    if let registered {
      registration.goOn(with: registered)
    } else {
      try await registration.register(cancelled: over)
    }
    if over.result == nil { announce(serving, machine, server) }
    var patienceEnds: ContinuousClock.Instant?
    while await isSuccessionRequested(before: over) {
      let work = Work(machine: machine, server: server, sessions: sessions, monitors: monitors, registration: registration)
      let failed = Promise<Void>()
      startTask { [logger] in
        let reason = await self.handOver(work)
        if over.result == nil {
          logger.error("this daemon goes on, for another cannot take over: \(reason)")
          ServiceManager.ready("Serving \(serving)", leader: machine.qemuProcess)
        }
        failed.fulfil()
      }
      // Who asks for the end meanwhile does not wait for that.
      await either(failed, or: over)
      guard ServiceManager.keepsDescriptors else { continue }
      // It does not ask again, but kills in the end.
      let end = patienceEnds ?? .now + Self.successionPatience
      if await over.value(within: Self.successionPause) == nil, .now < end {
        patienceEnds = end
        successionRequested.fulfil()
      } else {
        patienceEnds = nil
      }
    }

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

  // MARK: another run of the daemon

  /// The work of the run before, if there is any.
  ///
  /// - Throws: why it cannot be gone on with, unless the machine can be found without.
  private func inherit(_ inheritance: Succession.Inheritance?, _ socket: FilePath?) throws -> Taken? {
    guard let inheritance else { return nil }
    do { return try takeOver(Succession.handover(inheritance), socket) } catch {
      let what = "cannot go on with what the daemon before has left, its sessions end"
      guard findsMachine else { throw Handover.Failure("\(what): \(error)") }
      logger.error("\(what): \(error)")
      return nil
    }
  }

  /// What is handed over.
  private struct Work {
    let machine: Machine
    let server: VarlinkServer
    let sessions: Sessions
    let monitors: AddedMonitors
    let registration: MachineRegistration
  }

  /// Waits until this run is over, or another is to go on.
  private func isSuccessionRequested(before over: Promise<Void>) async -> Bool {
    await either(successionRequested, or: over)
    return over.result == nil
  }

  private func either(_ first: Promise<Void>, or second: Promise<Void>) async {
    let either = Promise<Void>()
    let waiters = [first, second].map { promise in (promise, promise.whenFulfilled { either.fulfil() }) }
    await either.value
    for (promise, waiter) in waiters { promise.forget(waiter) }
  }

  /// Hands over to the next run of the daemon, and does not return then.
  ///
  /// - Returns: why it could not. Everything goes on as before.
  private func handOver(_ work: Work) async -> String {
    logger.notice("another run of this program is to take over")
    let deadline = ContinuousClock.now + Self.successionLimit
    defer {
      successionRequested = Promise()
      work.server.isAccepting = true
      work.sessions.unsettle()
    }
    guard !sockets.areConnectionsOnly else { return "its only clients are on connections that it was started with, which end with it" }
    // What the next run would not start with is said before anything is given up.
    do {
      _ = try PolicyFile.read(QMPVarlinkd.serviceOptionsByNow().policy, owner: geteuid())
    } catch { return "it would not start: \(QMPVarlinkd.message(for: error))" }
    let byManager = Succession.isByManager(outlives: work.machine.outlivesDaemon)
    work.server.isAccepting = false
    while true {
      if stopRequested.result != nil { return "it is to stop" }
      do {
        try await work.machine.answers()
        await work.sessions.settle(within: max(.zero, deadline - .now))
        try await work.machine.settle()
        try await work.machine.rest()
        // Nothing has changed so far. Whether it can be done is known only when it has been tried.
        let count = try handover(of: work, byManager: byManager).descriptors.count
        // And the file that tells of them.
        if byManager { try ServiceManager.checkRoom(for: count + 1) }
        await work.sessions.endShared()
        await work.server.sent(within: Self.successionRetry)
        try await work.machine.rest()
        if stopRequested.result != nil { return "it is to stop" }
        // From here on nothing comes between.
        try Succession.begin(handover(of: work, byManager: byManager), byManager: byManager, arePassed: !sockets.isEmpty)
      } catch let error as Handover.Failure where ContinuousClock.now < deadline && work.machine.disconnected.result == nil {
        logger.debug("not yet: \(error)")
        _ = await Promise<Void>().value(within: Self.successionRetry)
      } catch {
        return "\(error)"
      }
    }
  }

  /// All of it as it is.
  private func handover(of work: Work, byManager: Bool) throws -> Handover {
    let handover = Handover()
    let machine = try work.machine.carried(handover)
    let sessions = try work.sessions.carried(handover)
    let monitors = try work.monitors.carried(handover)
    // Those of a service manager it gives to each run itself.
    let isPassed = !sockets.isEmpty
    let listening = isPassed && byManager ? [] : work.server.listeningDescriptors
    handover.value = .object([
      "format": .integer(Self.handoverFormat), "version": .string(programVersion), "machine": machine, "sessions": sessions,
      "monitors": monitors, "registered": .array(work.registration.scopes.map { .string($0.rawValue) }),
      "listening": .array(try listening.map { try handover.add($0) }), "passed": .boolean(isPassed),
    ])
    return handover
  }

  /// Changes when a run of the program could not read what one of another version has left.
  private static let handoverFormat = 1

  /// The work of the run before.
  private struct Taken {
    let machine: Machine
    let server: VarlinkServer
    let socket: FilePath?
    let handover: Handover
  }

  /// Takes over the work of the run before.
  private func takeOver(_ handover: Handover, _ socket: FilePath?) throws -> Taken {
    guard handover.value["format"]?.integer == Int64(Self.handoverFormat) else {
      throw Handover.Failure("it is in a form that this version (\(programVersion)) cannot read")
    }
    guard let carried = handover.value["machine"], carried["name"]?.string == "\(options.machine)" else {
      throw Handover.Failure("it is of another machine than '\(options.machine)'")
    }
    let machine = try Machine.goOn(with: carried, handover, responseLimit: .seconds(options.responseLimit), logger: logger)
    var listening: [CInt] = []
    for number in handover.value["listening"]?.elements ?? [] { if let socket = handover.take(number) { listening.append(socket.take()) } }
    var socket = socket
    if handover.value["passed"]?.boolean == true, sockets.isEmpty, !listening.isEmpty {
      sockets = PassedSockets(listening: listening)
      socket = sockets.path
      listening = []
    }
    let server = try makeServer(at: listening.isEmpty ? socket : nil)
    for socket in listening { try server.listen(on: OwnedDescriptor(owning: socket)) }
    // The policy may be another by now.
    if !listening.isEmpty, let socket, socket.withPlatformString({ chmod($0, authorisation.socketMode) }) != 0 {
      logger.error("\(SystemdError.last("cannot change the mode of \(socket)"))")
    }
    return Taken(machine: machine, server: server, socket: socket, handover: handover)
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
      if guestPanicked, [.exited(0), .unknown].contains(status) { return Status.guestPanicked }
      if status != .unknown { return Self.exitStatus(status) }
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
    limits.strangers = min(limits.strangers, Int(limits.connections) / 2)
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
    case .unknown: Status.connectionLost
    }
  }
}
