import Control
import SystemdEvent
import SystemdJSON

/// The machines of some hosts, or of this one.
@EventLoopActor
final class WatchedFleet {
  private(set) var machines: [WatchedMachine] = []
  /// Hosts that cannot be asked.
  private(set) var problems: [ControlError] = []

  private let hosts: [SSHHost]
  private let limit: Duration
  private var listed: ContinuousClock.Instant?
  private var isListing = false
  /// How long the list of another host's machines is good for: it takes a program there to make it.
  private static let remoteListAge = Duration.seconds(30)

  /// - Parameter limit: how long an answer may take.
  init(_ hosts: [SSHHost], within limit: Duration) {
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
    let answers = await HostMachines.ask(hosts, asksMachines: false, within: limit)
    listed = .now
    problems = answers.compactMap(\.problem)
    let known = machines
    machines = answers.flatMap { answer -> [WatchedMachine] in
      // A host that does not answer now has its machines nevertheless.
      guard answer.problem == nil else { return known.filter { $0.address.host == answer.host } }
      return answer.machines.map { machine in
        known.first { $0.address.socket == machine.address.socket && $0.address.host == machine.address.host }
          ?? WatchedMachine(machine.address, within: limit)
      }
    }
  }

  var json: JSONVariant { .array(machines.map(\.json)) }
}
