import CSystemd
import Glibc

extension EventLoop {
  /// The time of day when the loop last woke up, in microseconds since 1970.
  @EventLoopActor public var wallClock: UInt64 {
    var now: UInt64 = 0
    mustSucceed("sd_event_now", sd_event_now(event, CLOCK_REALTIME, &now))
    return now
  }
}
