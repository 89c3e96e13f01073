import Control
import SystemdEvent
import SystemdJSON

/// A machine that is asked again and again, over one connection.
@EventLoopActor
final class WatchedMachine {
  /// What one session has done.
  struct Session {
    let json: JSONVariant
    let id: String
    let bytesIn: Int64
    let bytesOut: Int64
    /// Since the round before, in bytes a second; nil if it was not there then.
    var rateIn: Double?
    var rateOut: Double?
  }

  let address: MachineAddress
  /// What it answered last, or why it did not.
  private(set) var status: MachineStatus
  private(set) var sessions: [Session] = []
  /// How long the last answer took.
  private(set) var latency: Duration?
  /// Since when it has been asked and not answered; nil if it has answered.
  private(set) var askedSince: ContinuousClock.Instant?
  /// Whether it has answered, or failed to, at least once.
  private(set) var isKnown = false

  private let limit: Duration
  private var connection: MachineConnection?
  private var answered: ContinuousClock.Instant?

  init(_ address: MachineAddress, within limit: Duration) {
    self.address = address
    self.limit = limit
    status = MachineStatus(address: address)
  }

  /// Asks, unless it is at that already.
  func ask() async {
    guard askedSince == nil else { return }
    askedSince = .now
    defer { (askedSince, isKnown) = (nil, true) }
    do throws(ControlError) {
      let connection: MachineConnection
      if let kept = self.connection { connection = kept } else { connection = try MachineConnection(to: address, within: limit) }
      self.connection = connection
      let start = ContinuousClock.now
      let description = try await connection.call("io.systemd.MachineInstance.Describe")
      latency = .now - start
      let listed = try await connection.call("io.qmpvarlink.Sessions.List")["sessions"]?.elements ?? []
      status = MachineStatus(address: address)
      status.process = connection.process
      status.state = description["status"]?.string
      status.isRunning = description["running"]?.boolean
      status.sessions = listed.count
      take(listed)
    } catch {
      connection = nil
      status = MachineStatus(address: address)
      status.problem = error
      (sessions, latency, answered) = ([], nil, nil)
    }
  }

  private func take(_ listed: [JSONVariant]) {
    let now = ContinuousClock.now
    let before = Dictionary(sessions.map { ($0.id, $0) }) { first, _ in first }
    let seconds = answered.map { (now - $0) / .seconds(1) }
    answered = now
    sessions = listed.compactMap { json in
      guard let id = json["id"]?.string, let bytesIn = json["bytesIn"]?.integer, let bytesOut = json["bytesOut"]?.integer else {
        return nil
      }
      var session = Session(json: json, id: id, bytesIn: bytesIn, bytesOut: bytesOut)
      if let earlier = before[id], let seconds, seconds > 0 {
        session.rateIn = Double(max(0, bytesIn - earlier.bytesIn)) / seconds
        session.rateOut = Double(max(0, bytesOut - earlier.bytesOut)) / seconds
      }
      return session
    }
  }

  /// Commands that QEMU has not answered yet, as far as that is known.
  var pending: Int64 { sessions.reduce(0) { $0 + max(0, $1.json["commandsInFlight"]?.integer ?? 0) } }

  /// As JSON, with the sessions as the machine tells them.
  var json: JSONVariant {
    .object(
      (status.json.members ?? []).filter { $0.name != "sessions" }.map { ($0.name, $0.value) }
        + [("latencyUSec", latency.map { .integer(Int64($0 / .microseconds(1))) } ?? .null), ("sessions", .array(sessions.map(\.json)))])
  }
}
