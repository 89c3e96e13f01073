import QMP
import SystemdEvent

/// The events of the spare monitor that the control monitor has not given yet: none, as long as that is well.
///
/// When a session has removed the control monitor from QEMU, what happened between that and its discovery is here.
@EventLoopActor
final class SpareEvents {
  /// How many events may wait for the control monitor. With more there will be a gap.
  private static let mostKept = 4096
  /// How long one may.
  private static let patience = Duration.seconds(1)

  /// Called when the control monitor is late with an event. QEMU writes it to both at once, so that one may be gone; and if nothing is
  /// asked on it, nothing else tells.
  var onLate: (() -> Void)?
  private var timer: EventSource?

  private let client: QMPClient
  private var kept: [QMPEvent] = []
  /// The position of the first that is kept, once that is known.
  private var first: Int?
  private var hasOverflowed = false
  private var fence = EventFence.Unparking()

  /// - Parameters:
  ///   - client: of the spare monitor, which has not negotiated yet.
  ///   - position: where the feed has come to.
  init(of client: QMPClient, since position: Int) {
    self.client = client
    fence.negotiationWritten = position
    client.keepsEventText = true
    client.onEvent = { [weak self] in self?.append($0) }
  }

  private func append(_ event: QMPEvent) {
    if kept.count >= Self.mostKept {
      hasOverflowed = true
      kept = []
    }
    if !hasOverflowed { kept.append(event) }
    watch()
  }

  /// Looks, some time from now, whether the oldest that is kept is still the same.
  private func watch() {
    guard timer == nil, !kept.isEmpty, let oldest = first else { return }
    timer = try? EventSource.timer(after: Self.patience) { [weak self] in
      guard let self else { return }
      self.timer = nil
      if !self.kept.isEmpty, self.first == oldest { self.onLate?() }
      self.watch()
    }
  }

  /// Finds out where the spare monitor's events stand in the feed.
  func align(with machine: Machine) async {
    let gaps = machine.feed.gaps
    guard await machine.fenceFeed() else { return }
    fence.fenced = machine.feed.position
    guard (try? await client.execute("query-name")) != nil else { return }
    fence.counted = kept.count
    guard await machine.fenceFeed(), machine.feed.gaps == gaps, !hasOverflowed else { return }
    fence.covered = machine.feed.position
    first = fence.start(of: kept.map(\.text), in: machine.feed.window)
    drop(before: machine.feed.position)
  }

  /// Forgets what the feed has.
  func drop(before position: Int) {
    guard let first, position > first else { return }
    // It may also be the feed that is ahead; then what is to come here is old.
    let count = min(position - first, kept.count)
    kept.removeFirst(count)
    self.first = first + count
  }

  /// The events from a position on; nil if it is not known which these are.
  func events(from position: Int) -> [QMPEvent]? {
    guard !hasOverflowed, first != nil else { return nil }
    drop(before: position)
    // Those that are still to come begin behind `position`, unless the spare monitor is behind the feed.
    guard let first, first >= position else { return nil }
    return kept
  }
}
