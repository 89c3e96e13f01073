/// Where a monitor's events stand among those of the feed, so that a session can change from the one to the other and have each
/// event once, in order.
///
/// QEMU writes each event to all negotiated monitors in one go, under a lock. So there is one sequence of events; the feed (the
/// control monitor) has it from some event on, and numbers it: its event `n` has *position* `n`. A session's monitor has an
/// unbroken stretch of the same sequence. Which stretch is not told by either stream: they share no clock, and one may be read
/// later than the other. Two things tell it nevertheless:
///
/// - *Fences*. QEMU answers a command on a monitor behind the events that it wrote there before. An event that we had read from one
///   monitor before we asked something on another was written to both before that is answered. So each question and its answer
///   bound the position, from one side.
/// - *Texts*. Where both are known they must be equal. They contain the time in microseconds.
///
/// When no event comes between the fences, the bounds meet and no text is needed. When texts are needed and more than one position
/// fits (identical events in the same microsecond), the answer is nil: nobody guesses.
///
/// *Parking*, with `k` events that the monitor gave since the first step, `q` of them before the third:
/// 1. a fence on the feed's monitor: answered at position `a`. What the monitor gave before is in the feed by then, so the `k`
///    events begin at most at `a`;
/// 2. the drain is written when the feed has come to `w`. What the feed has is on the monitor too, before the drain's answer: the
///    `k` events begin at least at `w - q`;
/// 3. the drain is answered, and the monitor is removed: begun at `r`, and done at `s`. Until it is disconnected, which is in between,
///    the monitor gets what the feed gets, and nothing after: the `k` events end at least at `r` and at most at `s`.
///
/// *Unparking*, with `k` events that the new monitor gave before step 3:
/// 1. the negotiation is written when the feed has come to `w`; what the feed has is older than the monitor: it begins at least at `w`;
/// 2. once negotiation is answered, a fence on the feed's monitor: answered at `a`. What is older than the monitor is in the feed by
///    then: it begins at most at `a`;
/// 3. a fence on the new monitor: what the feed had at `a` is in the `k` events, from their first on: they begin at least at `a - k`;
/// 4. another fence on the feed's monitor: answered at `b`. It has all `k` events by then: they end at most at `b`.
///
/// The steps 3 and 4 are needed only where those before do not tell.
public enum EventFence {
  /// An event as QEMU wrote it, without the line end.
  public typealias Text = [UInt8]

  /// What is known of the feed: the events from one position on, without a gap.
  public struct Window: Sendable {
    public let start: Int
    public let texts: [Text]
    public init(start: Int, texts: [Text]) {
      self.start = start
      self.texts = texts
    }

    /// The event of that position, if it is known.
    func text(_ position: Int) -> Text? {
      let index = position - start
      return texts.indices.contains(index) ? texts[index] : nil
    }
  }

  /// The position of the first of a monitor's `events`.
  ///
  /// - Parameters:
  ///   - earliest: the largest of the lower bounds.
  ///   - latest: the smallest of the upper bounds.
  /// - Returns: the only position between the bounds at which no text contradicts; nil if there is none, or more than one.
  public static func position(of events: [Text], from earliest: Int, to latest: Int, in feed: Window) -> Int? {
    guard max(0, earliest) <= latest else { return nil }
    var found: Int?
    for candidate in max(0, earliest)...latest {
      let fits = events.indices.allSatisfy { index in
        guard let text = feed.text(candidate + index) else { return true }
        return text == events[index]
      }
      guard fits else { continue }
      if found != nil { return nil }
      found = candidate
    }
    return found
  }

  /// What the steps of parking have told; see ``EventFence``.
  public struct Parking: Sendable {
    /// The feed's positions: at the first fence's answer, when the drain was written, when the removal was asked for, and when it
    /// was done.
    public var fenced = 0
    public var drainWritten = 0
    public var removalAsked = 0
    public var removed = 0
    public init() {}

    /// The position behind the last event that the monitor gave, which is where the feed goes on for the session.
    ///
    /// - Parameters:
    ///   - events: what the monitor gave since before the first fence was asked for.
    ///   - drained: how many of them it gave before the drain was answered.
    public func end(of events: [Text], drained: Int, in feed: Window) -> Int? {
      let count = events.count
      let earliest = max(drainWritten - drained, removalAsked - count)
      let latest = min(fenced, removed - count)
      return position(of: events, from: earliest, to: latest, in: feed).map { $0 + count }
    }
  }

  /// What the steps of unparking have told; see ``EventFence``.
  public struct Unparking: Sendable {
    /// The feed's positions: when the negotiation was written, and at the answer of the fence that followed its reply.
    public var negotiationWritten = 0
    public var fenced = 0
    /// How many events the new monitor had given when it answered its own fence; nil without that.
    public var counted: Int?
    /// The feed's position at the answer of its second fence; nil without that.
    public var covered: Int?
    public init() {}

    /// The position of the new monitor's first event.
    ///
    /// - Parameter events: all that the new monitor gave.
    public func start(of events: [Text], in feed: Window) -> Int? {
      let earliest = max(negotiationWritten, counted.map { fenced - $0 } ?? 0)
      let latest = min(fenced, covered.map { $0 - (counted ?? 0) } ?? .max)
      return position(of: events, from: earliest, to: latest, in: feed)
    }
  }
}
