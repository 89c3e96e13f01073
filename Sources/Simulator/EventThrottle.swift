import QEMUJSON
import SystemdEvent

/// Holds back events that come too often, as QEMU does: of some kinds the first is sent at once and then the last one a second.
/// The limit is one for all monitors.
@EventLoopActor
final class EventThrottle {
  /// The throttled kinds, and the member of their data that tells several sources apart.
  private static let kinds: [String: String?] = [
    "RTC_CHANGE": nil, "WATCHDOG": nil, "BALLOON_CHANGE": nil, "QUORUM_FAILURE": nil, "HV_BALLOON_STATUS_REPORT": nil,
    "QUORUM_REPORT_BAD": "node-name", "VSERPORT_CHANGE": "id", "MEMORY_DEVICE_SIZE_CHANGE": "qom-path", "BLOCK_IO_ERROR": "qom-path",
  ]
  private static let interval = Duration.seconds(1)

  private struct Key: Hashable {
    let event: String
    let source: String
  }
  private final class Window {
    var pending: QObject?
    var timer: SimulatedClock.Timer?
  }

  private let clock: SimulatedClock
  private let send: (QObject) -> Void
  private var windows: [Key: Window] = [:]

  init(clock: SimulatedClock, send: @escaping (QObject) -> Void) {
    self.clock = clock
    self.send = send
  }

  /// Sends an event now or later, or never if a later one takes its place.
  func emit(_ name: String, data: QObject?, _ message: QObject) {
    guard let member = Self.kinds[name] else { return send(message) }
    let key = Key(event: name, source: member.flatMap { data?[$0]?.string } ?? "")
    if let window = windows[key] {
      window.pending = message
    } else {
      let window = Window()
      windows[key] = window
      send(message)
      reopen(key, window)
    }
  }

  func stop() { windows = [:] }

  private func reopen(_ key: Key, _ window: Window) {
    window.timer = clock.schedule(after: Self.interval) { [weak self, weak window] in
      guard let self, let window else { return }
      guard let message = window.pending else {
        windows[key] = nil
        return
      }
      window.pending = nil
      send(message)
      reopen(key, window)
    }
  }
}
