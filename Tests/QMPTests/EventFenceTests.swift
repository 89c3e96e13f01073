import Testing

@testable import QMP

/// Every order in which events, the steps of parking and unparking, QEMU's work on them and the reading of the two streams can
/// follow one another, with up to ``mostEvents`` events.
@Suite struct EventFenceTests {
  static let mostEvents = 5

  /// Texts of events, by their position.
  enum Texts: CaseIterable {
    case distinct, identical, pairs, alternating
    func callAsFunction(_ position: Int) -> EventFence.Text {
      switch self {
      case .distinct: [UInt8(position)]
      case .identical: [0]
      case .pairs: [UInt8(position / 2)]
      case .alternating: [UInt8(position % 2)]
      }
    }
  }

  /// What waits to be read.
  enum Item: Hashable { case event, answer }

  /// QEMU and the daemon, in any state between.
  struct State: Hashable {
    var emitted = 0
    /// Written by QEMU and not read.
    var feed: [Item] = []
    var monitor: [Item] = []
    /// What the daemon has read of the feed.
    var position = 0
    /// How many events it has read from the monitor before the first step, and since.
    var before = 0
    var events = 0
    /// The first event that the monitor got, and the one that it did not get any more.
    var attachedFrom = 0
    var detachedAt: Int?
    var phase = 0
    /// Asked, and QEMU has not come to it.
    var isAskedOnFeed = false
    var isAskedOnMonitor = false
    /// The daemon's notes.
    var drained = 0
    var fenced = 0
    var written = 0
    var removalAsked = 0
    var removed = 0
    var isClosed = false
  }

  /// Walks through every state that can follow.
  static func explore(from first: State, _ next: (State) -> [State], _ visit: (State) -> Void) -> Int {
    var seen: Set<State> = [first]
    var stack = [first]
    while let state = stack.popLast() {
      visit(state)
      for following in next(state) where seen.insert(following).inserted { stack.append(following) }
    }
    return seen.count
  }

  static func window(_ state: State, _ texts: Texts) -> EventFence.Window {
    EventFence.Window(start: 0, texts: (0..<state.position).map { texts($0) })
  }

  // MARK: parking

  /// Phases: 0 nothing yet; 1 the feed's fence is asked; 2 the drain is written; 3 the removal is asked; 4 all is known.
  static func afterParkingStep(_ state: State) -> [State] {
    var following: [State] = []
    func add(_ change: (inout State) -> Void) {
      var copy = state
      change(&copy)
      following.append(copy)
    }
    if state.phase < 4, state.emitted < mostEvents {
      add {
        $0.emitted += 1
        $0.feed.append(.event)
        if $0.detachedAt == nil { $0.monitor.append(.event) }
      }
    }
    if state.phase == 0 {
      add {
        $0.phase = 1
        $0.isAskedOnFeed = true
      }
    }
    if state.isAskedOnFeed {
      add {
        $0.isAskedOnFeed = false
        $0.feed.append(.answer)
        if $0.phase == 3 {
          $0.detachedAt = $0.emitted
          $0.monitor.append(.answer)
        }
      }
    }
    if state.isAskedOnMonitor {
      add {
        $0.isAskedOnMonitor = false
        $0.monitor.append(.answer)
      }
    }
    if let item = state.feed.first {
      add {
        $0.feed.removeFirst()
        switch (item, $0.phase) {
        case (.event, _): $0.position += 1
        case (.answer, 1):
          $0.fenced = $0.position
          $0.written = $0.position
          $0.phase = 2
          $0.isAskedOnMonitor = true
        default: $0.removed = 1
        }
        finishParking(&$0)
      }
    }
    if let item = state.monitor.first {
      add {
        $0.monitor.removeFirst()
        switch (item, $0.phase) {
        case (.event, 0): $0.before += 1
        case (.event, _): $0.events += 1
        case (.answer, 2):
          $0.drained = $0.events
          $0.removalAsked = $0.position
          $0.phase = 3
          $0.isAskedOnFeed = true
        default: $0.isClosed = true
        }
        finishParking(&$0)
      }
    }
    return following
  }

  private static func finishParking(_ state: inout State) {
    if state.phase == 3, state.removed > 0, state.isClosed {
      state.removed = state.position
      state.phase = 4
    }
  }

  @Test("parking: the feed goes on exactly where the monitor ended, in every order", arguments: Texts.allCases)
  func parking(texts: Texts) {
    var decided = 0
    var undecided = 0
    var wrong: [State] = []
    let states = Self.explore(from: State(), Self.afterParkingStep) { state in
      guard state.phase == 4 else { return }
      var fence = EventFence.Parking()
      fence.fenced = state.fenced
      fence.drainWritten = state.written
      fence.removalAsked = state.removalAsked
      fence.removed = state.removed
      let events = (0..<state.events).map { texts(state.before + $0) }
      switch fence.end(of: events, drained: state.drained, in: Self.window(state, texts)) {
      case nil: undecided += 1
      case state.detachedAt: decided += 1
      default: wrong.append(state)
      }
    }
    print("\(texts): \(states) states, \(decided) ends decided, \(undecided) not")
    #expect(wrong.isEmpty, "\(wrong.first.map { "\($0)" } ?? "")")
    #expect(decided > 100)
    if texts == .distinct { #expect(undecided == 0) }
  }

  // MARK: unparking

  /// Phases: 0 nothing yet; 1 the negotiation is written; 2 the feed's fence is asked; 3 the monitor's fence is asked; 4 the feed's second
  /// fence is asked; 5 all is known.
  static func afterUnparkingStep(_ state: State) -> [State] {
    var following: [State] = []
    func add(_ change: (inout State) -> Void) {
      var copy = state
      change(&copy)
      following.append(copy)
    }
    let isAttached = state.detachedAt != nil
    if state.phase < 5, state.emitted < mostEvents {
      add {
        $0.emitted += 1
        $0.feed.append(.event)
        if isAttached { $0.monitor.append(.event) }
      }
    }
    if state.phase == 0 {
      add {
        $0.phase = 1
        $0.written = $0.position
        $0.isAskedOnMonitor = true
      }
    }
    if state.isAskedOnMonitor, state.phase == 1, !isAttached {
      // QEMU negotiates, and answers that later: an event may come between.
      add {
        $0.detachedAt = $0.emitted
        $0.attachedFrom = $0.emitted
      }
    } else if state.isAskedOnMonitor {
      add {
        $0.isAskedOnMonitor = false
        $0.monitor.append(.answer)
      }
    }
    if state.isAskedOnFeed {
      add {
        $0.isAskedOnFeed = false
        $0.feed.append(.answer)
      }
    }
    if let item = state.feed.first {
      add {
        $0.feed.removeFirst()
        if item == .event { return $0.position += 1 }
        if $0.phase == 4 {
          $0.removed = $0.position
          $0.phase = 5
          return
        }
        $0.fenced = $0.position
        $0.phase = 3
        $0.isAskedOnMonitor = true
      }
    }
    if let item = state.monitor.first {
      add {
        $0.monitor.removeFirst()
        if item == .event { return $0.events += 1 }
        $0.phase = $0.phase == 1 ? 2 : 4
        if $0.phase == 4 { $0.drained = $0.events }
        $0.isAskedOnFeed = true
      }
    }
    return following
  }

  @Test("unparking: the new monitor's first event has its place, in every order", arguments: Texts.allCases)
  func unparking(texts: Texts) {
    var decided = 0
    var undecided = 0
    var early = 0
    var wrong: [State] = []
    let states = Self.explore(from: State(), Self.afterUnparkingStep) { state in
      guard state.phase >= 3 else { return }
      var fence = EventFence.Unparking()
      fence.negotiationWritten = state.written
      fence.fenced = state.fenced
      if state.phase >= 4 { fence.counted = state.drained }
      if state.phase == 5 { fence.covered = state.removed }
      let events = (0..<state.events).map { texts(state.attachedFrom + $0) }
      // Asked as soon as the feed's fence has been answered, and at any time after that.
      switch fence.start(of: events, in: Self.window(state, texts)) {
      case nil: if state.phase == 5 { undecided += 1 }
      case state.attachedFrom: if state.phase == 5 { decided += 1 } else { early += 1 }
      default: wrong.append(state)
      }
    }
    print("\(texts): \(states) states, \(decided) starts decided, \(early) before the last fence, \(undecided) not")
    #expect(wrong.isEmpty, "\(wrong.first.map { "\($0)" } ?? "")")
    #expect(decided > 100 && early > 100)
    if texts == .distinct { #expect(undecided == 0) }
  }

  @Test("no position, or more than one, is none")
  func notDecided() {
    let feed = EventFence.Window(start: 10, texts: [[1], [2], [2], [3]])
    #expect(EventFence.position(of: [[2], [3]], from: 10, to: 13, in: feed) == 12)
    #expect(EventFence.position(of: [[2]], from: 10, to: 13, in: feed) == nil)
    #expect(EventFence.position(of: [[2]], from: 12, to: 13, in: feed) == 12)
    #expect(EventFence.position(of: [[4]], from: 10, to: 13, in: feed) == nil)
    #expect(EventFence.position(of: [], from: 11, to: 10, in: feed) == nil)
    #expect(EventFence.position(of: [], from: 11, to: 11, in: feed) == 11)
    // What is not known any more, or not yet, contradicts nothing.
    #expect(EventFence.position(of: [[9], [1]], from: 9, to: 10, in: feed) == 9)
    #expect(EventFence.position(of: [[3], [7]], from: 12, to: 13, in: feed) == 13)
  }
}
