import Glibc
public import Logging
public import Machine
import SystemPackage
public import SystemdEvent
import Varlink

/// A machine's entry at systemd-machined, which makes it one of those that machinectl lists and controls.
///
/// It lives here, where Varlink and the machine meet: machined is another Varlink service that a machine is shown to, and how it fails
/// is no matter of the command line's.
@EventLoopActor
public final class MachineRegistration {
  /// A machine that was to be registered is not.
  public struct Failure: Error, CustomStringConvertible {
    public let description: String
  }

  private let machine: MachineDescription
  private let policy: Tristate
  private let managers: [(scope: RuntimeScope, machined: Machined?)]
  private let logger: Logger
  /// Those that have, or may have, an entry.
  private var entries: [(machined: Machined, isCertain: Bool)] = []

  /// How long machined may take. To ask the user takes longer, but a daemon whose start takes longer is given up by service managers.
  private static let registrationLimit = Duration.seconds(10)
  private static let interactiveLimit = Duration.seconds(60)
  private static let removalLimit = Duration.seconds(3)

  /// - Parameters:
  ///   - policy: whether to register, with systemd-vmspawn's meanings. Under `auto` it is done where machined runs, and the machine
  ///     goes on if that fails; under `yes` it is a failure.
  ///   - scope: in the user's, the machine is registered with the system's machined and with the user's.
  public init(_ machine: MachineDescription, _ policy: Tristate, in scope: RuntimeScope, logger: Logger) {
    self.machine = machine
    self.policy = policy
    self.logger = logger
    managers = (scope == .system ? [.system] : [.system, .user]).map { ($0, Machined($0)) }
  }

  /// Registers the machine, if that is wanted.
  ///
  /// - Parameter cancelled: fulfilled by somebody who does not want to wait any more; this returns then.
  /// - Throws: ``Failure``, under `yes` only.
  public func register(cancelled: Promise<Void>) async throws(Failure) {
    guard policy != .no else { return }
    let attempts = managers.map { manager in
      let attempt = Promise<VarlinkClientError?>()
      startTask { attempt.fulfil(await self.register(with: manager, cancelled)) }
      return (manager.scope, attempt)
    }
    var failures: [(scope: RuntimeScope, error: VarlinkClientError)] = []
    for (scope, attempt) in attempts {
      if let error = await attempt.value { failures.append((scope, error)) }
    }
    guard cancelled.result == nil else { return }
    do {
      try report(failures)
    } catch {
      await unregister()
      throw error
    }
  }

  /// Where the machine has an entry, for the next run of the daemon.
  public var scopes: [RuntimeScope] { entries.filter(\.isCertain).map(\.machined.scope) }

  /// Has the entries that the run of the daemon before has made.
  public func goOn(with scopes: [RuntimeScope]) {
    for manager in managers where scopes.contains(manager.scope) {
      if let machined = manager.machined { entries.append((machined, true)) }
    }
  }

  private func register(with manager: (scope: RuntimeScope, machined: Machined?), _ cancelled: Promise<Void>) async -> VarlinkClientError? {
    guard let machined = manager.machined else { return .connect(SystemdError("XDG_RUNTIME_DIR", .noSuchFileOrDirectory)) }
    var machine = machine
    // The user's machines are in the user's units.
    if managers.count > 1, manager.scope == .system { machine.allocatesUnit = false }
    let limit = machine.allowsInteractiveAuthentication ? Self.interactiveLimit : Self.registrationLimit
    do {
      try await machined.register(machine, within: limit, cancelled: cancelled)
      entries.append((machined, true))
      return nil
    } catch {
      switch error {
      case .timedOut, .closed, .disconnected: entries.append((machined, false))
      case .connect, .refused: break
      }
      return error
    }
  }

  private func report(_ failures: [(scope: RuntimeScope, error: VarlinkClientError)]) throws(Failure) {
    let registered = managers.map(\.scope).filter { scope in !failures.contains { $0.scope == scope } }
    if !registered.isEmpty {
      logger.info("registered with systemd-machined (\(registered.map(\.rawValue).joined(separator: " and ")))")
    }
    guard !failures.isEmpty else { return }
    let absent = failures.allSatisfy { if case .connect(let error) = $0.error { Self.meansAbsent.contains(error.errno) } else { false } }
    let reasons = failures.map { "\($0.scope.rawValue): \(reason(of: $0.error, in: $0.scope))" }.joined(separator: "; ")
    guard policy == .auto else {
      throw Failure(
        description: "could not register machine '\(machine.name)' with systemd-machined (\(reasons)): "
          + (absent
            ? "start systemd-machined (systemctl start systemd-machined.socket), or run with --register=auto or --register=no"
            : "see what systemd-machined says of it, or run with --register=auto or --register=no"))
    }
    if !absent {
      logger.warning("could not register with systemd-machined, going on without (\(reasons))")
    } else if registered.isEmpty {
      logger.info("not registered with systemd-machined, which does not run")
    }
  }

  private func reason(of error: VarlinkClientError, in scope: RuntimeScope) -> String {
    let isNowhere = managers.contains { $0.scope == scope && $0.machined == nil }
    return isNowhere ? "XDG_RUNTIME_DIR, which leads to it, is not set" : "\(error)"
  }

  /// What connecting fails with where machined does not run.
  private static let meansAbsent: [Errno] = [.noSuchFileOrDirectory, .connectionRefused]

  /// Takes the registration back, if there is one.
  public func unregister() async {
    let withdrawals = entries.map { entry in
      let done = Promise<Void>()
      startTask {
        await self.unregister(with: entry)
        done.fulfil()
      }
      return done
    }
    entries = []
    for withdrawal in withdrawals { await withdrawal.value }
  }

  private func unregister(with entry: (machined: Machined, isCertain: Bool)) async {
    // Another machine may have the name that we did not get. Without a leader machined took the caller for it.
    let leader = entry.isCertain ? nil : machine.leader ?? (try? ProcessIdentity(of: getpid()))
    do {
      try await entry.machined.unregister(machine.name, leader: leader, within: Self.removalLimit)
    } catch .refused(let error) where error.name == "io.systemd.Machine.NoSuchMachine" {
      // It goes by itself when its leader has ended.
      logger.debug("systemd-machined has forgotten the machine already")
    } catch {
      let level: Logger.Level = entry.isCertain ? .notice : .debug
      logger.log(level: level, "could not unregister from systemd-machined (\(entry.machined.scope.rawValue)): \(error)")
    }
  }
}
