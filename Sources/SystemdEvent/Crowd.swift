/// Those who take memory by being there, such as connections. Once many of them have gone, what they had goes back to the system; the
/// allocator would keep it for the next crowd.
@EventLoopActor
public final class Crowd {
  /// How many have to go: handing memory back takes milliseconds, and has to be had again page by page.
  private static let manyGone = 128

  private var count = 0
  /// The most that there were since memory was given back.
  private var most = 0
  private var whenIdle: EventSource?

  public init() {}

  /// One more is there.
  public func enter() {
    count += 1
    most = max(most, count)
  }

  /// One of them has gone.
  public func leave() {
    count -= 1
    guard most - count >= Self.manyGone else { return }
    most = count
    // Behind everything that somebody waits for.
    whenIdle = try? EventSource.whenIdle { returnFreeMemory() }
  }
}
