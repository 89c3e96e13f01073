import Control
import SystemdEvent
import SystemdJSON
import Terminal

/// What is to be seen of machines and sessions: lines of text.
@EventLoopActor
struct TopView {
  private let machines: [WatchedMachine]
  private let problems: [ControlError]

  init(_ fleet: WatchedFleet) {
    machines = fleet.machines
    problems = fleet.problems
  }

  /// The lines, without their ends.
  ///
  /// - Parameter width: how many columns there are; nil for as many as it takes.
  func lines(looks: Looks, width: Int?) -> [String] {
    [headline(width)] + problems.map { looks(cut($0.message, width), .red) } + [""] + machineGrid.lines(looks, width)
      + (sessionGrid.isEmpty ? [] : [""] + sessionGrid.lines(looks, width))
  }

  private func cut(_ text: String, _ width: Int?) -> String {
    let width = width ?? .max
    return text.terminalWidth <= width ? text : text.fitted(to: width)
  }

  private func headline(_ width: Int?) -> String {
    func count(_ number: some BinaryInteger, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }
    let silent = machines.count { $0.status.problem != nil }
    let sessions = machines.reduce(0) { $0 + $1.sessions.count }
    let pending = machines.reduce(0) { $0 + $1.pending }
    var words = [count(machines.count, "machine"), count(sessions, "session"), count(pending, "command") + " pending"]
    if silent > 0 { words.append("\(silent) without answer") }
    return cut(words.joined(separator: ", "), width)
  }

  private var hasHosts: Bool { machines.contains { $0.address.host != nil } }

  /// The machine as it is named here.
  private func name(_ machine: WatchedMachine) -> String {
    (machine.address.host.map { "\($0.name): " } ?? "") + machine.address.name
  }

  private var machineGrid: Grid {
    var grid = Grid([
      ("MACHINE", .left), ("STATE", .left), ("PID", .right), ("SESSIONS", .right), ("PENDING", .right), ("IN/s", .right), ("OUT/s", .right),
      ("LATENCY", .right),
    ])
    for machine in machines {
      let state = StateWord(machine.status)
      let look: Look? =
        switch state.emphasis {
        case .good: .green
        case .bad: .red
        case .doubtful: .yellow
        default: nil
        }
      let rates = machine.sessions.filter { $0.rateIn != nil }
      let isRated = !rates.isEmpty || machine.sessions.isEmpty && machine.isKnown && machine.status.problem == nil
      grid.add([
        (name(machine), .bold), (state.word ?? (machine.isKnown ? "-" : "asking"), look),
        (machine.status.process.map { "\($0.id)" } ?? "-", nil), (machine.status.sessions.map { "\($0)" } ?? "-", nil),
        (machine.status.sessions == nil ? "-" : "\(machine.pending)", nil),
        (isRated ? Self.bytes(rates.reduce(0) { $0 + ($1.rateIn ?? 0) }) : "-", nil),
        (isRated ? Self.bytes(rates.reduce(0) { $0 + ($1.rateOut ?? 0) }) : "-", nil),
        latency(machine),
      ])
    }
    return grid
  }

  /// How long the last answer took, or how long one has been waited for.
  private func latency(_ machine: WatchedMachine) -> (String, Look?) {
    if let since = machine.askedSince, case let waited = ContinuousClock.now - since, waited > .seconds(1) {
      return (">\(waited.components.seconds)s", .yellow)
    }
    return (machine.latency.map(Self.milliseconds) ?? "-", nil)
  }

  private var sessionGrid: Grid {
    var grid = Grid([
      ("SESSION", .left), ("MACHINE", .left), ("STATE", .left), ("ACCESS", .left), ("MODE", .left), ("CLIENT", .left), ("PENDING", .right),
      ("IN", .right), ("OUT", .right), ("IN/s", .right), ("OUT/s", .right), ("IDLE", .right),
    ])
    let sessions = machines.flatMap { machine in machine.sessions.map { (machine: machine, session: $0) } }
    // The busiest first, and else as they came.
    let busy = sessions.enumerated().sorted { left, right in
      let rates = [left, right].map { ($0.element.session.rateIn ?? 0) + ($0.element.session.rateOut ?? 0) }
      return rates[0] != rates[1] ? rates[0] > rates[1] : left.offset < right.offset
    }
    for (machine, session) in busy.map(\.element) {
      let json = session.json
      let state = json["state"]?.string ?? "-"
      let look: Look? = state == "active" ? .green : state == "stuck" ? .red : state == "draining" ? .yellow : .faint
      let client = [json["peer"]?["command"]?.string, json["peer"]?["pid"]?.integer.map { "[\($0)]" }].compactMap { $0 }.joined()
      grid.add([
        (session.id, nil), (name(machine), .bold), (state, look), (json["access"]?.string ?? "-", nil), (json["mode"]?.string ?? "-", nil),
        (client.isEmpty ? "-" : client, nil), (json["commandsInFlight"]?.integer.map { "\($0)" } ?? "-", nil),
        (Self.bytes(Double(session.bytesIn)), nil), (Self.bytes(Double(session.bytesOut)), nil),
        (session.rateIn.map(Self.bytes) ?? "-", nil),
        (session.rateOut.map(Self.bytes) ?? "-", nil),
        (json["idleUSec"]?.integer.map { Duration.seconds(max(0, $0) / 1_000_000).inWords } ?? "-", nil),
      ])
    }
    return grid
  }

  /// A number of bytes, in at most five characters.
  nonisolated static func bytes(_ number: Double) -> String {
    var number = max(0, number)
    for unit in ["", "K", "M", "G", "T", "P"] {
      // 1023.6 would be rounded to what the next unit is for.
      if number < 999.5 || unit == "P" {
        let isWhole = unit.isEmpty || number >= 99.95
        return isWhole ? "\(Int(min(number.rounded(), 1e15)))\(unit)" : "\((number * 10).rounded() / 10)\(unit)"
      }
      number /= 1024
    }
    return "-"
  }

  nonisolated static func milliseconds(_ duration: Duration) -> String {
    let tenths = Int64((duration / .milliseconds(1) * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)ms"
  }
}
