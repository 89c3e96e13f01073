@testable import QMP

/// A QEMU whose events come when the input says, and are read late: what the fences tell of a monitor's place is the truth, or
/// nothing.
enum FenceTarget {
  static func run(_ bytes: [UInt8]) throws {
    var script = ByteReader(bytes)
    if script.byte() & 1 == 0 { try park(&script) } else { try unpark(&script) }
  }

  /// The sequence of events, and how far those who read it have come.
  private struct Timeline {
    var written: [EventFence.Text] = []
    var fed = 0
    private var script: ByteReader

    init(_ script: ByteReader) { self.script = script }

    /// Some events are written, from an alphabet so small that many are alike; and the feed is read some way.
    mutating func pass() {
      for _ in 0..<script.number(below: 4) { written.append([UInt8(ascii: "a") + script.byte() % 2]) }
      fed += script.number(below: written.count - fed + 1)
    }

    /// A question on the feed's monitor is asked and answered.
    mutating func fence() -> Int {
      pass()
      let answered = written.count
      fed = answered
      return answered
    }

    mutating func number(below count: Int) -> Int { script.number(below: count) }

    /// What is known of the feed; what was long ago is forgotten.
    mutating func window(before end: Int) -> EventFence.Window {
      let start = number(below: min(end, fed) + 1)
      return EventFence.Window(start: start, texts: Array(written[start..<fed]))
    }
  }

  private static func park(_ script: inout ByteReader) throws {
    var time = Timeline(script)
    time.pass()
    time.pass()
    // The monitor is read late too: it has yet to give what comes from here on.
    let start = time.number(below: time.written.count + 1)
    var steps = EventFence.Parking()
    steps.fenced = time.fence()
    time.pass()
    steps.drainWritten = time.fed
    time.pass()
    let drained = time.written.count - start
    time.pass()
    steps.removalAsked = time.fed
    time.pass()
    let end = time.written.count
    steps.removed = time.fence()
    let events = Array(time.written[start..<end])
    let found = steps.end(of: events, drained: drained, in: time.window(before: start))
    try demand(found == nil || found == end, "the monitor's events end at \(end), not at \(found ?? -1)")
    if time.written.count == start { try demand(found == end, "without events there is nothing to doubt") }
  }

  private static func unpark(_ script: inout ByteReader) throws {
    var time = Timeline(script)
    time.pass()
    var steps = EventFence.Unparking()
    steps.negotiationWritten = time.fed
    time.pass()
    let start = time.written.count
    time.pass()
    steps.fenced = time.fence()
    var given = start + time.number(below: time.written.count - start + 1)
    if time.number(below: 2) == 1 {
      time.pass()
      given = time.written.count
      steps.counted = given - start
      if time.number(below: 2) == 1 { steps.covered = time.fence() }
    }
    let events = Array(time.written[start..<given])
    let found = steps.start(of: events, in: time.window(before: start))
    try demand(found == nil || found == start, "the monitor's events begin at \(start), not at \(found ?? -1)")
  }
}
