import Control
import SystemdEvent
import SystemdJSON

/// The machines that are watched: all of some hosts, or of this one, or those that were named.
@EventLoopActor
final class WatchedFleet {
  private(set) var machines: [WatchedMachine] = []
  /// Why hosts cannot be asked, and names are of no machine.
  private(set) var problems: [ControlError] = []

  private let names: [String]
  private let hosts: [SSHHost]
  private let limit: Duration
  private var listed: ContinuousClock.Instant?
  private var isListing = false
  /// How long the list of another host's machines is good for: it takes a program there to make it.
  private static let remoteListAge = Duration.seconds(30)

  /// - Parameters:
  ///   - names: none for all machines.
  ///   - hosts: none for this one.
  ///   - limit: how long an answer may take.
  init(_ names: [String], on hosts: [SSHHost], within limit: Duration) {
    self.names = names
    self.hosts = hosts
    self.limit = limit
  }

  /// Asks all machines at once; waits for the slowest.
  func ask() async {
    await list()
    _ = await concurrently(machines) { await $0.ask() }
  }

  /// Looks which machines there are.
  func list() async {
    if !hosts.isEmpty, let listed, .now - listed < Self.remoteListAge { return }
    guard !isListing else { return }
    isListing = true
    defer { isListing = false }
    let targets = await MachineTarget.find(names, on: hosts, within: limit)
    listed = .now
    let known = machines
    problems = []
    machines = targets.flatMap { target -> [WatchedMachine] in
      switch target.address {
      case .success(let address):
        let old = known.first { $0.address.socket == address.socket && $0.address.host == address.host }
        return [old ?? WatchedMachine(address, within: limit)]
      case .failure(let problem):
        problems.append(problem)
        // A host that does not answer now has its machines nevertheless.
        return known.filter { $0.address.host == target.host && (target.name == nil || $0.address.name == target.name) }
      }
    }
  }

  var json: JSONVariant { .array(machines.map(\.json)) }
}
