import ArgumentParser
import Control
import Glibc
import SystemdEvent
import SystemdJSON

/// `qmpctl events`
struct EventsCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "events",
    abstract: "Show what happens to machines, as it happens.",
    discussion: """
      READY comes first: from then on nothing is missed. Ends with the machines, when it is interrupted, and when nobody reads its \
      output any more. With --json each event is a line.
      """)
  static let handledSignals = [SIGINT, SIGTERM, SIGHUP]

  @OptionGroup var machines: MachinesOptions

  @Option(
    name: .long, parsing: .singleValue,
    help: ArgumentHelp(
      "An event to show, or a pattern such as 'DEVICE_*'; may be given more than once. Default: all.", valueName: "pattern"),
    completion: .list(EventNames.common))
  var filter: [String] = []

  @OptionGroup var output: OutputOptions

  func execute() async throws -> CInt {
    let over = Promise<CInt>()
    let signals = try Self.handledSignals.map { signal in try EventSource.signal(signal) { over.fulfil(0) } }
    let reader = StandardOutput.whenClosed { over.fulfil(0) }
    let streams = Streams(over)
    startTask {
      // All at once, since each goes on until its machine ends; and no host waits for another.
      let statuses = await concurrently(machines.hosts.each, atMost: .max) { hosts in
        let targets = await MachineTarget.find(machines.names, on: hosts, within: machines.time.limit)
        if targets.isEmpty { complain(ControlError(.unreachable, "there are no machines\(hosts.first.map { " at \($0.name)" } ?? "")")) }
        return await concurrently(targets, atMost: .max) { target in await show(target, streams) }.max()
          ?? ControlError.Kind.unreachable.rawValue
      }
      over.fulfil(statuses.max() ?? 0)
    }
    let status = await over.value
    streams.close()
    withExtendedLifetime((signals, reader)) {}
    return status
  }

  /// The connections that there are.
  @EventLoopActor
  private final class Streams {
    private var connections: [MachineConnection] = []
    private let over: Promise<CInt>

    /// - Parameter over: fulfilled when no more events are wanted.
    init(_ over: Promise<CInt>) { self.over = over }

    func add(_ connection: MachineConnection) { connections.append(connection) }

    /// Whether no more events are wanted. A terminal's Ctrl-C ends what carries them from other hosts too, which may be seen first.
    var areUnwanted: Bool {
      var pending = sigset_t()
      sigpending(&pending)
      return over.result != nil || EventsCommand.handledSignals.contains { sigismember(&pending, $0) == 1 }
    }

    /// They cannot be written any more.
    func abandon(because error: any Error) {
      if error is StandardOutput.Closed { return over.fulfil(0) }
      complain(ControlError(.failed, "\(error)"))
      over.fulfil(ControlError.Kind.failed.rawValue)
    }

    func close() {
      for connection in connections { connection.close() }
    }
  }

  /// Shows one machine's events until there are no more.
  ///
  /// - Returns: the exit status for it.
  @EventLoopActor private func show(_ target: MachineTarget, _ streams: Streams) async -> CInt {
    var hasEnded = false
    do {
      let connection = try MachineConnection(to: target.address.get(), within: machines.time.limit)
      streams.add(connection)
      let showsEnd = filter.isEmpty || filter.contains { fnmatch($0, "SHUTDOWN", 0) == 0 }
      // Whether the machine has ended is to be known in any case.
      let patterns = filter + (showsEnd ? [] : ["SHUTDOWN"])
      let parameters = filter.isEmpty ? nil : JSONVariant.object([("filter", .array(patterns.map { .string($0) }))])
      let last = try await connection.observe("io.systemd.MachineInstance.SubscribeEvents", parameters) { message in
        let isEnd = message["event"]?.string == "SHUTDOWN"
        if isEnd { hasEnded = true }
        guard !isEnd || showsEnd else { return }
        do { try write(message, of: target) } catch { streams.abandon(because: error) }
      }
      try write(last, of: target)
      throw ControlError(.failed, "\(target.label): too many events were left unread; this is all of them until now")
    } catch let error as ControlError {
      // After its end a machine hangs up.
      if streams.areUnwanted || hasEnded && error.kind == .unreachable { return 0 }
      complain(error)
      return error.kind.rawValue
    } catch {
      streams.abandon(because: error)
      return 0
    }
  }

  @EventLoopActor private func write(_ message: JSONVariant, of target: MachineTarget) throws {
    guard output.json else {
      return try StandardOutput.write(EventLine.text(of: message, label: machines.mayBeSeveral ? target.label : nil, .standard()))
    }
    try output.write(
      .object([
        "machine": target.name.map { .string($0) }, "host": target.host.map { .string($0.name) }, "event": message["event"],
        "data": message["data"], "timestamp": message["timestamp"],
      ]))
  }
}

/// Names of events, for those who type them.
enum EventNames {
  /// The ones that are of use to people; every QEMU has them.
  static let common = [
    "BALLOON_CHANGE", "BLOCK_IO_ERROR", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_ERROR", "BLOCK_JOB_READY", "DEVICE_DELETED", "GUEST_PANICKED",
    "JOB_STATUS_CHANGE", "MIGRATION",
    "NIC_RX_FILTER_CHANGED", "POWERDOWN", "RESET", "RESUME", "RTC_CHANGE", "SHUTDOWN", "STOP", "SUSPEND", "WAKEUP", "WATCHDOG",
  ]
}
