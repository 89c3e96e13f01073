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
  private var endHandlers: [() -> Void] = []
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

  /// Whether libsystemd is at work on this connection, and we were called from there.
  var isDispatching = false
  /// How much of what follows a reply is done with it. A client that pipelines calls must not keep the loop.
  private static let stepsPerSend = 4

  /// Writes what was queued, as far as the peer takes it, and does what follows. Left to the event loop this takes three turns,
  /// and in each of them libsystemd looks at every connection there is.
  func send() {
    guard !isDispatching else { return }
    for _ in 0..<Self.stepsPerSend where !hasEnded {
      if sd_varlink_process(link) <= 0 { return }
    }
  }

  /// Calls `handler` at the end of the connection; at once, if that was already.
  func atEnd(_ handler: @escaping () -> Void) {
    if hasEnded { handler() } else { endHandlers.append(handler) }
  }

  /// Whether libsystemd holds output that the socket does not take.
  var hasUnsent: Bool {
    guard !hasEnded else { return false }
    let events = sd_varlink_get_events(link)
    return events > 0 && events & CInt(EPOLLOUT.rawValue) != 0
  }

  /// Waits until there is no such output, but no longer than `limit`.
  func sent(within limit: Duration) async {
    guard hasUnsent else { return }
    // epoll takes a descriptor once, and libsystemd has this one there: a second number for the same socket tells when it takes more.
    let copy = fcntl(sd_varlink_get_fd(link), F_DUPFD_CLOEXEC, 3)
    guard copy >= 0 else { return }
    let descriptor = OwnedDescriptor(owning: copy)
    let sent = Promise<Void>()
    var source = try? EventSource.descriptor(descriptor.raw, .writable) { [self] _ in if !hasUnsent { sent.fulfil() } }
    atEnd { sent.fulfil() }
    if source != nil { _ = await sent.value(within: limit) }
    source.cancel()
    withExtendedLifetime(descriptor) {}
  }

  /// The server's disconnect callback came.
  func didEnd() {
    hasEnded = true
    let handlers = endHandlers
    endHandlers = []
    for handler in handlers { handler() }
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
        send()
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
