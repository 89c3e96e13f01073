import Logging
import Machine
import QMP
import Relay
import SystemdEvent

/// Makes monitors for sessions that wake, and has one ready for the next.
///
/// To add a monitor to QEMU takes ten times as long as a short command, so a session that wakes gets one that was made before. It
/// is kept only while a session is parked: an open monitor costs each of QEMU's commands some time, too.
@EventLoopActor
final class StandbyMonitors {
  /// A negotiated monitor, and the position of its first event in the feed; or one that is not negotiated, whose events have none.
  struct Ready {
    let id: String
    let monitor: StandbyMonitor
    let start: Int
  }

  /// Why there is none.
  enum Failure: Error, CustomStringConvertible {
    case notAligned
    case gone
    case stopping
    var description: String {
      switch self {
      case .notAligned: "it cannot be told which events its client has had"
      case .gone: "QEMU closed it at once"
      case .stopping: "the daemon stops"
      }
    }
  }

  /// How often to try again when a new monitor's events cannot be told from others, or somebody else has meddled with it.
  private static let mostAttempts = 5
  /// How long a new monitor may be silent before it is looked after.
  private static let patience = Duration.seconds(2)
  /// How many are added at once: QEMU does one after the other.
  private static let mostAtOnce = 8

  private let machine: Machine
  private let remove: (String) async -> Void
  private let adding = Turns(limit: mostAtOnce)
  private var kept: Ready?
  private var isMaking = false
  private var refillTimer: EventSource?
  /// How many are being made or removed.
  private var underWay = 0
  private var isFinished: Promise<Void>?
  /// No more are made.
  private var isStopping = false
  /// How long a session that has just woken has QEMU to itself: to add a monitor takes longer than most commands.
  private static let refillDelay = Duration.milliseconds(20)
  /// Whether one is to be kept ready.
  var isWanted = false {
    didSet {
      if isWanted { refill() } else { drop() }
    }
  }

  /// - Parameter remove: removes a monitor that is at rest, by its id.
  init(machine: Machine, remove: @escaping (String) async -> Void) {
    self.machine = machine
    self.remove = remove
  }

  /// A monitor for a session.
  func take(negotiated: Bool) async throws -> Ready {
    if negotiated, let ready = kept {
      kept = nil
      ready.monitor.onGone = nil
      refill()
      return ready
    }
    var attempt = 1
    while true {
      do {
        return try await make(negotiated: negotiated)
      } catch let failure as Failure where failure != .stopping && attempt < Self.mostAttempts {
        attempt += 1
      } catch MachineError.monitor(.exists) where attempt < Self.mostAttempts {
        attempt += 1
      }
    }
  }

  /// Gets rid of one that was taken and is not used.
  func discard(_ ready: Ready) {
    ready.monitor.onGone = nil
    underWay += 1
    startTask {
      // It has answered all that it was asked.
      await self.remove(ready.id)
      withExtendedLifetime(ready) {}
      self.isDone()
    }
  }

  private func isDone() {
    underWay -= 1
    guard underWay == 0 else { return }
    isFinished?.fulfil()
    isFinished = nil
  }

  /// Makes no more, and waits until none is left in QEMU, but no longer than `limit`.
  func finish(within limit: Duration) async {
    isStopping = true
    isWanted = false
    guard underWay > 0 else { return }
    let finished = isFinished ?? Promise<Void>()
    isFinished = finished
    _ = await finished.value(within: limit)
  }

  /// Goes on after ``finish(within:)``.
  func goOn() { isStopping = false }

  /// Forgets the events that the feed has.
  func feedMoved() {
    guard let kept else { return }
    kept.monitor.dropEvents(min(kept.monitor.events.count, max(0, machine.feed.position - kept.start - kept.monitor.dropped)))
  }

  /// Positions mean nothing any more.
  func feedHasGap() {
    drop()
    refill()
  }

  private func drop() {
    refillTimer = nil
    guard let ready = kept else { return }
    kept = nil
    discard(ready)
  }

  private func refill() {
    guard isWanted, kept == nil, !isMaking, refillTimer == nil else { return }
    refillTimer = try? EventSource.timer(after: Self.refillDelay) { [weak self] in
      self?.refillTimer = nil
      self?.makeSpare()
    }
  }

  private func makeSpare() {
    guard isWanted, kept == nil, !isMaking, machine.disconnected.result == nil else { return }
    isMaking = true
    startTask {
      let gaps = self.machine.feed.gaps
      let ready = try? await self.make(negotiated: true)
      self.isMaking = false
      guard let ready else { return }
      guard self.isWanted, self.kept == nil, gaps == self.machine.feed.gaps, !ready.monitor.isGone else { return self.discard(ready) }
      self.kept = ready
      self.feedMoved()
      // It is kept as long as this is set.
      ready.monitor.onGone = { [weak self] in self?.drop() }
    }
  }

  private func make(negotiated: Bool) async throws -> Ready {
    underWay += 1
    defer { isDone() }
    await adding.begin()
    defer { adding.end() }
    if isStopping { throw Failure.stopping }
    let gaps = machine.feed.gaps
    let added = try await machine.monitors.add()
    let id = added.id
    let monitor: StandbyMonitor
    var fence = EventFence.Unparking()
    fence.negotiationWritten = machine.feed.position
    do {
      monitor = try StandbyMonitor(added.takeSocket(), negotiates: negotiated)
    } catch {
      await remove(id)
      throw error
    }
    guard await answers(id, monitor.ready) else {
      await machine.discardMonitor(id)
      throw Failure.gone
    }
    if !negotiated { return Ready(id: id, monitor: monitor, start: 0) }
    if let start = await position(of: monitor, id, &fence), gaps == machine.feed.gaps {
      return Ready(id: id, monitor: monitor, start: start)
    }
    await remove(id)
    withExtendedLifetime(monitor) {}
    throw Failure.notAligned
  }

  /// Waits for what a monitor is to say; if it does not, for its end. Somebody else may have deleted it, of which QEMU says nothing.
  ///
  /// - Returns: whether it is there.
  func answers(_ id: String, _ answer: Promise<Bool>) async -> Bool {
    while true {
      if let isThere = await answer.value(within: Self.patience) { return isThere }
      await machine.examineMonitor(id)
    }
  }

  /// Where a new monitor's events begin in the feed.
  private func position(of monitor: StandbyMonitor, _ id: String, _ fence: inout EventFence.Unparking) async -> Int? {
    let feed = machine.feed
    guard await machine.fenceFeed() else { return nil }
    fence.fenced = feed.position
    if let start = fence.start(of: monitor.events, in: feed.window) { return start }
    guard await answers(id, monitor.fence()) else { return nil }
    fence.counted = monitor.events.count
    if let start = fence.start(of: monitor.events, in: feed.window) { return start }
    guard await machine.fenceFeed() else { return nil }
    fence.covered = feed.position
    return fence.start(of: monitor.events, in: feed.window)
  }
}
