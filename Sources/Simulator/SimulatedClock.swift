public import SystemdEvent

/// The time in a simulator: the system's, or one that stands still until it is moved.
@EventLoopActor
public final class SimulatedClock {
  /// A point in time, as QMP's timestamps tell it.
  public struct Time: Sendable, Equatable {
    public var seconds: Int64
    public var microseconds: Int64
    public init(seconds: Int64, microseconds: Int64 = 0) {
      self.seconds = seconds
      self.microseconds = microseconds
    }
  }

  /// Something that is to happen; it does not if this is let go of.
  final class Timer {
    fileprivate let deadline: Duration
    fileprivate let handler: () -> Void
    fileprivate var source: EventSource?
    fileprivate init(_ deadline: Duration, _ handler: @escaping () -> Void) {
      self.deadline = deadline
      self.handler = handler
    }
  }

  private let start: Time?
  /// How far a clock of one's own was moved.
  private var elapsed = Duration.zero
  private var timers: [WeakTimer] = []
  private struct WeakTimer {
    weak var timer: Timer?
  }

  /// The system's time.
  public init() { start = nil }

  /// A time that goes on with ``advance(by:)`` only.
  public init(standingAt start: Time) { self.start = start }

  public var now: Time {
    guard let start else {
      let now = EventLoop.shared.wallClock
      return Time(seconds: Int64(now / 1_000_000), microseconds: Int64(now % 1_000_000))
    }
    let (seconds, attoseconds) = elapsed.components
    let microseconds = start.microseconds + attoseconds / 1_000_000_000_000
    return Time(seconds: start.seconds + seconds + microseconds / 1_000_000, microseconds: microseconds % 1_000_000)
  }

  /// Moves a clock that stands still; what falls due happens before this returns.
  public func advance(by step: Duration) {
    precondition(start != nil, "the system's time cannot be moved")
    let end = elapsed + step
    while let next = timers.compactMap(\.timer).filter({ $0.deadline <= end }).min(by: { $0.deadline < $1.deadline }) {
      elapsed = max(elapsed, next.deadline)
      timers.removeAll { $0.timer == nil || $0.timer === next }
      next.handler()
    }
    elapsed = end
  }

  func schedule(after delay: Duration, _ handler: @escaping () -> Void) -> Timer {
    let timer = Timer(elapsed + delay, handler)
    if start == nil {
      timer.source = try? EventSource.timer(after: delay) { [weak timer] in timer?.handler() }
    } else {
      timers.removeAll { $0.timer == nil }
      timers.append(WeakTimer(timer: timer))
    }
    return timer
  }
}
