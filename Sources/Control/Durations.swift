import Glibc

extension Duration {
  /// The two largest units that it has, as systemd writes them: `2h 5min`, `3.250s`, `40ms`.
  public var inWords: String {
    let (whole, attoseconds) = components
    let milliseconds = attoseconds / 1_000_000_000_000_000
    guard whole > 0 else { return milliseconds > 0 ? "\(milliseconds)ms" : "0" }
    if whole < 60 {
      let digits = String(milliseconds)
      return milliseconds == 0 ? "\(whole)s" : "\(whole).\(String(repeating: "0", count: 3 - digits.count))\(digits)s"
    }
    let units: [(name: String, seconds: Int64)] = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    guard let first = units.firstIndex(where: { whole >= $0.seconds }) else { return "\(whole)s" }
    let rest = whole % units[first].seconds
    let words = "\(whole / units[first].seconds)\(units[first].name)"
    guard first + 1 < units.count, rest >= units[first + 1].seconds else { return words }
    return "\(words) \(rest / units[first + 1].seconds)\(units[first + 1].name)"
  }
}

/// A point in time, in microseconds since 1970.
public struct WallTime: Sendable, Equatable {
  public let microseconds: UInt64

  public init(microseconds: UInt64) { self.microseconds = microseconds }

  public static var now: WallTime {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return WallTime(microseconds: UInt64(max(0, time.tv_sec)) * 1_000_000 + UInt64(max(0, time.tv_nsec / 1000)))
  }

  /// How long it is ago, in whole seconds; 0 for what is to come.
  public var age: Duration {
    let now = Self.now.microseconds
    return .seconds(now > microseconds ? (now - microseconds) / 1_000_000 : 0)
  }

  /// Weekday, date, time and zone of this place, as systemd writes them.
  public var dateAndTime: String { formatted("%a %Y-%m-%d %H:%M:%S %Z") }

  /// The time of day at this place, with milliseconds.
  public var timeOfDay: String {
    let milliseconds = String(microseconds / 1000 % 1000)
    return "\(formatted("%H:%M:%S")).\(String(repeating: "0", count: 3 - milliseconds.count))\(milliseconds)"
  }

  private func formatted(_ format: String) -> String {
    var time = time_t(clamping: microseconds / 1_000_000)
    var parts = tm()
    localtime_r(&time, &parts)
    var buffer = [CChar](repeating: 0, count: 128)
    let count = strftime(&buffer, buffer.count, format, &parts)
    return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
