import SystemdEvent

/// A machine that the user named, or what kept it from being found.
public struct MachineTarget: Sendable {
  /// What the user calls it; nil for a host of which all machines are meant, and which cannot be reached.
  public let name: String?
  public let host: SSHHost?
  public let address: Result<MachineAddress, ControlError>

  /// What to call it where there are several: `HOST:NAME` on another host.
  public var label: String { [host?.name, name].compactMap { $0 }.joined(separator: ":") }

  /// Finds machines.
  ///
  /// - Parameters:
  ///   - names: those to find on each host; none for all that there are.
  ///   - hosts: where they are, asked all at once; none for this host.
  ///   - limit: how long a host may take to answer.
  @EventLoopActor
  public static func find(
    _ names: [String], on hosts: [SSHHost], in folders: MachineFolders = .standard(), within limit: Duration
  ) async -> [MachineTarget] {
    guard !hosts.isEmpty else {
      return names.isEmpty
        ? folders.machines.map { MachineTarget(name: $0.name, host: nil, address: .success($0)) }
        : names.map { name in MachineTarget(name: name, host: nil, address: result { () throws(ControlError) in try folders.machine(name) })
        }
    }
    return await concurrently(hosts) { host in
      let found: [MachineAddress]
      do throws(ControlError) {
        // Those that are named by their paths are not looked for.
        let mustLook = names.isEmpty || names.contains { !$0.hasPrefix("/") }
        found = mustLook ? try await host.machines(within: limit) : []
      } catch {
        return names.isEmpty
          ? [MachineTarget(name: nil, host: host, address: .failure(error))]
          : names.map { MachineTarget(name: $0, host: host, address: .failure(error)) }
      }
      guard !names.isEmpty else { return found.map { MachineTarget(name: $0.name, host: host, address: .success($0)) } }
      return names.map { name in
        MachineTarget(name: name, host: host, address: result { () throws(ControlError) in try host.machine(name, among: found) })
      }
    }.flatMap { $0 }
  }

  private static func result<Value>(_ body: () throws(ControlError) -> Value) -> Result<Value, ControlError> {
    do throws(ControlError) { return .success(try body()) } catch { return .failure(error) }
  }
}
