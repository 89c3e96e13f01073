public import QMP
public import SystemdEvent

/// The machine's events as QEMU wrote them, numbered: event `n` since the daemon began has position `n`.
///
/// It comes from the control monitor, and keeps the newest events for those who compare.
@EventLoopActor
public final class EventFeed {
  /// How many events are kept.
  private static let mostKept = 512

  /// The position of the next event.
  public private(set) var position = 0
  /// The newest events, up to ``position``, without line ends.
  public private(set) var newest: [[UInt8]] = []
  /// The newest events, to compare with.
  public var window: EventFence.Window { EventFence.Window(start: position - newest.count, texts: newest) }
  /// The events from a position on; nil if they are not all kept.
  public func events(from start: Int) -> [[UInt8]]? {
    guard (position - newest.count...position).contains(start) else { return nil }
    return Array(newest.suffix(position - start))
  }
  /// Called with each event's text, after it was counted.
  public var onEvent: (([UInt8]) -> Void)?
  /// Called when events may have been missed: the monitor that they come from was replaced.
  public var onGap: (() -> Void)?
  /// How often there may have been a gap. What was fenced before one says nothing after it.
  public private(set) var gaps = 0

  init() {}

  func append(_ text: [UInt8]) {
    position += 1
    // Half of it at once, so that not each event moves all the others.
    if newest.count >= Self.mostKept { newest.removeFirst(Self.mostKept / 2) }
    newest.append(text)
    onEvent?(text)
  }

  func mayHaveMissed() {
    gaps += 1
    newest = []
    onGap?()
  }
}

extension Machine {
  /// Waits until the feed has every event that QEMU had written when this was called.
  ///
  /// - Returns: false if that cannot be said: QEMU does not answer, or the monitor that the feed comes from was replaced meanwhile.
  public func fenceFeed() async -> Bool {
    let gaps = feed.gaps
    guard (try? await control.execute("query-name")) != nil else { return false }
    return feed.gaps == gaps
  }
}
