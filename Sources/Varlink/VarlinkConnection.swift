import CSystemd
import Glibc
import SystemPackage
import SystemdEvent

/// One client's connection, from accept to its end: by hang-up, by the server, or by an upgrade.
@EventLoopActor
final class VarlinkConnection {
  /// Valid until `didEnd()`: the server's callbacks keep it in step.
  let link: OpaquePointer
  let peer: PeerCredentials
  private let end = Promise<Void>()
  private(set) var hasEnded = false

  /// The two descriptors of an upgraded connection: for input and for output.
  typealias Upgraded = (input: CInt, output: CInt)
  private var upgrade: CheckedContinuation<Upgraded?, Never>?
  private var upgradeCheck: EventSource?
  private var upgradeEnd: (() -> Void)?

  /// Whether an upgrade was asked for whose outcome is not known yet.
  var isUpgrading: Bool { upgrade != nil }

  /// Calls `handler` when the outcome of the upgrade under way is known.
  func atUpgradeEnd(_ handler: @escaping () -> Void) { upgradeEnd = handler }

  init(_ link: OpaquePointer) {
    self.link = link
    var user: uid_t = 0
    var group: gid_t = 0
    var process: pid_t = 0
    peer = PeerCredentials(
      user: sd_varlink_get_peer_uid(link, &user) >= 0 ? user : nil,
      group: sd_varlink_get_peer_gid(link, &group) >= 0 ? group : nil,
      process: sd_varlink_get_peer_pid(link, &process) >= 0 ? process : nil)
  }

  /// The peer's process itself.
  func peerProcess() throws(SystemdError) -> OwnedDescriptor {
    try PeerCredentials.process(of: check("sd_varlink_get_fd", sd_varlink_get_fd(link)))
  }

  /// The groups of the peer's process beside its first.
  var peerGroups: [UInt32] { PeerCredentials.supplementaryGroups(of: sd_varlink_get_fd(link)) }

  // MARK: driving it

  /// Whether libsystemd is at work on this connection, and we were called from there.
  private var isProcessing = false
  private var source: EventSource?
  /// Of the descriptor for output, where that is not the one for input.
  private var outputSource: EventSource?
  /// A pipe whose writer has gone says so for ever.
  private var inputHasHungUp = false
  private var again: EventSource?
  /// Those who wait until all that was sent is on its way.
  private var awaitingSent: [Promise<Void>] = []
  /// How much is done with a connection at a time: reading, parsing, calling and writing are a step each. A client that pipelines
  /// calls must not keep the loop.
  private static let stepsPerTurn = 8

  /// Takes the connection over from libsystemd's event sources. There it would take three turns of the loop for each call, and in
  /// each of them every connection that there is would be looked at.
  ///
  /// - Throws: when there is no memory for that, or the system's limit of watches is reached.
  func drive() throws(SystemdError) {
    let input = try check("sd_varlink_get_input_fd", sd_varlink_get_input_fd(link))
    let output = try check("sd_varlink_get_output_fd", sd_varlink_get_output_fd(link))
    sd_varlink_detach_event(link)
    source = try .descriptor(input, .readable) { [weak self] ready in self?.ready(ready) }
    if output != input { outputSource = try .descriptor(output, []) { [weak self] ready in self?.outputReady(ready) } }
  }

  private func ready(_ ready: Readiness) {
    guard !hasEnded else { return }
    if ready.contains(.hangUp) {
      if outputSource == nil {
        // Its own poll is how libsystemd learns of a hang-up while it has no wish to read.
        sd_varlink_wait(link, 0)
      } else {
        // No more than the end of the calls: what is under way is answered on the other descriptor.
        inputHasHungUp = true
      }
    }
    let didSomething = process()
    // What comes while a call is under way is left alone until that is answered; it would wake us again and again. But what we were
    // woken for may have been read meanwhile, in a turn of ``again``: then there is more to come.
    if !didSomething, ready.contains(.readable), !hasEnded, !wanted.contains(.readable) { source?.interest.remove(.readable) }
  }

  private func outputReady(_ ready: Readiness) {
    guard !hasEnded else { return }
    // Nobody reads any more, which libsystemd would learn when it writes next.
    if !ready.isDisjoint(with: [.hangUp, .error]) { sd_varlink_close(link) } else { process() }
  }

  private func wait(for wanted: Readiness) {
    guard let source else { return }
    // Reading is asked for more often than it is wanted: a system call less for each call.
    guard let outputSource else { return source.interest = wanted.union(source.interest.intersection(.readable)) }
    source.interest = wanted.intersection(.readable)
    source.isEnabled = !inputHasHungUp || wanted.contains(.readable)
    outputSource.interest = wanted.intersection(.writable)
  }

  private var wanted: Readiness { Readiness(rawValue: UInt32(max(0, sd_varlink_get_events(link)))) }

  /// Writes what was queued, as far as the peer takes it, and does what follows.
  ///
  /// - Returns: whether there was anything to do.
  @discardableResult
  func process() -> Bool {
    guard !isProcessing, !hasEnded else { return false }
    isProcessing = true
    defer { isProcessing = false }
    var steps = 0
    var isAtRest = false
    while !isAtRest, steps < Self.stepsPerTurn {
      // After a failure there is the end to be dealt with.
      if sd_varlink_process(link) == 0 { isAtRest = true } else { steps += 1 }
      if hasEnded { return true }
      // It waits for the next call, and what came has been read.
      if wanted == .readable { isAtRest = true }
    }
    guard source != nil else { return steps > 0 }
    let wanted = wanted
    wait(for: wanted)
    if !isAtRest {
      again = try? .deferred { [weak self] in self?.process() }
      // Out of memory: nothing would wake what is read and not dealt with.
      if again == nil { sd_varlink_close(link) }
    }
    if !wanted.contains(.writable) { for waiting in awaitingSent { waiting.fulfil() } }
    return steps > 0
  }

  /// Calls `handler` at the end of the connection; at once, if that was already.
  ///
  /// - Returns: what ``forget(_:)`` takes.
  @discardableResult
  func atEnd(_ handler: @escaping () -> Void) -> Int { end.whenFulfilled { handler() } }

  /// Lets go of a handler.
  func forget(_ waiter: Int) { end.forget(waiter) }

  /// Whether libsystemd holds output that the socket does not take.
  var hasUnsent: Bool {
    !hasEnded && wanted.contains(.writable)
  }

  /// Waits until there is no such output, but no longer than `limit`.
  func sent(within limit: Duration) async {
    guard hasUnsent, source != nil else { return }
    let sent = Promise<Void>()
    awaitingSent.append(sent)
    _ = await sent.value(within: limit)
    awaitingSent.removeAll { $0 === sent }
  }

  /// The server's disconnect callback came.
  func didEnd() {
    hasEnded = true
    source.cancel()
    outputSource.cancel()
    again.cancel()
    for waiting in awaitingSent { waiting.fulfil() }
    end.fulfil()
    guard upgrade != nil else { return }
    // This callback comes both when the peer vanished and, right before the upgrade callback, when the upgrade went well.
    // What is true is known once the dispatch under way is over.
    upgradeCheck = try? EventSource.deferred { [weak self] in self?.finishUpgrade(nil) }
    if upgradeCheck == nil { finishUpgrade(nil) }
  }

  /// How long a peer may take to read what is in front of the upgrade's reply, and that.
  private static let upgradeLimit = Duration.seconds(10)

  /// Sends the final reply, and takes the connection over once it is out.
  ///
  /// - Returns: nil if the peer went first, or did not read.
  func respondAndUpgrade(_ parameters: OpaquePointer?) async throws(SystemdError) -> Upgraded? {
    guard !hasEnded else { return nil }
    try check("sd_varlink_bind_upgrade", sd_varlink_bind_upgrade(link, VarlinkServer.upgradeCallback))
    // Unsafe only in name: the call below happens before this function suspends.
    nonisolated(unsafe) let parameters = parameters
    var failure: SystemdError?
    let timer = try EventSource.timer(after: Self.upgradeLimit) { [self] in if !hasEnded { sd_varlink_close(link) } }
    defer { withExtendedLifetime(timer) {} }
    let upgraded = await withCheckedContinuation { (continuation: CheckedContinuation<Upgraded?, Never>) in
      upgrade = continuation
      let result = sd_varlink_respond_and_upgrade(link, parameters)
      if result < 0 {
        upgrade = nil
        failure = SystemdError("sd_varlink_respond_and_upgrade", Errno(rawValue: -result))
        continuation.resume(returning: nil)
      } else {
        process()
      }
    }
    if let failure, failure.errno != .socketNotConnected { throw failure }
    return upgraded
  }

  /// The upgrade callback came with descriptors that are ours, or will not come.
  func finishUpgrade(_ upgraded: Upgraded?) {
    upgradeCheck = nil
    guard let waiting = upgrade else {
      if let upgraded {
        close(upgraded.input)
        close(upgraded.output)
      }
      return
    }
    upgrade = nil
    upgradeEnd?()
    upgradeEnd = nil
    waiting.resume(returning: upgraded)
  }
}
