import SystemPackage
public import SystemdEvent
public import SystemdJSON

/// What a machine is doing, in short.
@EventLoopActor
public struct MachineStatus {
  public let address: MachineAddress
  /// QEMU's run state; nil if it could not be asked.
  public var state: String?
  /// Whether the virtual CPUs run; likewise.
  public var isRunning: Bool?
  /// The process that serves it, as far as that is known.
  public var process: ServingProcess?
  /// How many QMP sessions it has; nil if that could not be asked.
  public var sessions: Int?
  /// Why it could not be asked.
  public var problem: ControlError?

  public init(address: MachineAddress) {
    self.address = address
    process = address.process
  }

  /// Asks a machine.
  ///
  /// - Parameter limit: how long each answer may take.
  public static func ask(_ address: MachineAddress, within limit: Duration) async -> MachineStatus {
    var status = MachineStatus(address: address)
    do throws(ControlError) {
      let connection = try MachineConnection(to: address, within: limit)
      try await status.ask(connection)
    } catch {
      status.problem = error
    }
    return status
  }

  /// Asks a machine that is connected.
  public mutating func ask(_ connection: MachineConnection) async throws(ControlError) {
    process = connection.process
    let description = try await connection.call("io.systemd.MachineInstance.Describe")
    state = description["status"]?.string
    isRunning = description["running"]?.boolean
    sessions = try await connection.call("io.qmpvarlink.Sessions.List")["sessions"]?.elements?.count
  }

  /// An entry of another qmpctl's list; nil if it is none.
  init?(from entry: JSONVariant, on host: SSHHost) {
    guard let address = host.address(from: entry) else { return nil }
    self.init(address: address)
    state = entry["status"]?.string
    isRunning = entry["running"]?.boolean
    sessions = entry["sessions"]?.integer.flatMap(Int.init(exactly:))
    problem = entry["error"]?.string.map { ControlError(.unreachable, $0) }
  }

  /// As JSON; what is not known is left out.
  public var json: JSONVariant {
    .object([
      "name": .string(address.name), "host": address.host.map { .string($0.name) }, "socket": .string(address.socket.string),
      "status": state.map { .string($0) }, "running": isRunning.map { .boolean($0) },
      "pid": process.map { .integer($0.id) }, "sinceUSec": process?.since.map { .integer($0.microseconds) },
      "sessions": sessions.map { .integer($0) }, "error": problem.map { .string($0.message) },
    ])
  }
}

/// What became of a host that was asked for its machines.
@EventLoopActor
public struct HostMachines {
  /// Nil for this host.
  public let host: SSHHost?
  public var machines: [MachineStatus] = []
  /// Why it could not be asked.
  public var problem: ControlError?

  /// Asks hosts, all at once, for their machines.
  ///
  /// - Parameters:
  ///   - hosts: those to ask; none for this host.
  ///   - asksMachines: whether each machine is asked for its status.
  ///   - limit: how long an answer may take.
  /// - Returns: the answers, in the order of the hosts.
  public static func ask(
    _ hosts: [SSHHost], asksMachines: Bool, in folders: MachineFolders = .standard(), within limit: Duration
  ) async -> [HostMachines] {
    guard !hosts.isEmpty else {
      let machines = await concurrently(folders.machines) { address in
        asksMachines ? await MachineStatus.ask(address, within: limit) : MachineStatus(address: address)
      }
      return [HostMachines(host: nil, machines: machines)]
    }
    return await concurrently(hosts) { host in
      var answer = HostMachines(host: host)
      do throws(ControlError) {
        let entries = try await host.list([asksMachines ? SSHHost.timeout(within: limit) : "--no-status"], within: limit)
        answer.machines = entries.compactMap { MachineStatus(from: $0, on: host) }
      } catch {
        answer.problem = error
      }
      return answer
    }
  }
}
