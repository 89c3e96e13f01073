import Glibc
import SystemdEvent
import SystemdJSON

/// When an event happened, by the clock of QEMU's host.
@EventLoopActor
struct EventTime {
  /// The time of day here, to the millisecond.
  let text: String

  /// - Returns: nil for what is no time.
  init?(_ timestamp: JSONVariant?) {
    guard var seconds = timestamp?["seconds"]?.integer.flatMap(time_t.init(exactly:)),
      let microseconds = timestamp?["microseconds"]?.integer, seconds >= 0, (0..<1_000_000).contains(microseconds)
    else { return nil }
    var time = tm()
    guard localtime_r(&seconds, &time) != nil else { return nil }
    func digits(_ number: some BinaryInteger, _ count: Int) -> String {
      let text = String(number)
      return String(repeating: "0", count: max(0, count - text.count)) + text
    }
    text = "\(digits(time.tm_hour, 2)):\(digits(time.tm_min, 2)):\(digits(time.tm_sec, 2)).\(digits(microseconds / 1000, 3))"
  }
}
