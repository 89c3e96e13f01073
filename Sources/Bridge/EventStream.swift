import Machine
import QMP
import SystemdEvent
import SystemdJSON
import Varlink

/// One call of SubscribeEvents: the machine's events until the caller or the machine goes.
///
/// A subscriber gets every event, or is told that it does not: one that leaves too much unread gets a last message OVERFLOW, which ends
/// the stream, behind all events that came before.
@EventLoopActor
struct EventStream {
  /// What libsystemd keeps for a connection is 16 MiB; beyond that it refuses, and nothing more can be told.
  private static let largestLimit = 12 << 20
  /// What Varlink adds to an event, at most.
  private static let envelope = 64
  /// How long a subscriber may take to read what it is owed when the machine has gone.
  private static let farewell = Duration.seconds(3)

  private let machine: Machine
  private let call: VarlinkCall
  private let unreadLimit: Int
  private let filter: EventFilter

  init(machine: Machine, call: VarlinkCall, unreadLimit: Int) {
    self.machine = machine
    self.call = call
    self.unreadLimit = min(unreadLimit, Self.largestLimit)
    filter = EventFilter(call.parameters["filter"])
  }

  private enum End {
    case machineGone, callerGone, overflow
  }

  /// - Returns: the last message of the stream; nil if the connection has ended instead.
  func run() async throws -> JSONVariant? {
    try call.notify(.object(["event": .string("READY")]))
    let end = Promise<End>()
    var sawShutdown = false
    // Since the last moment at which nothing waited to be sent: more than what waits, never less.
    var unread = 0
    // Sent when nothing waited. What it weighs is of interest only if it then waits itself, which is rare, and costs a text.
    var unweighed: JSONVariant?
    func weight(_ message: JSONVariant) -> Int { message.withText(\.count) + Self.envelope }
    let subscription = machine.subscribe { event in
      guard end.result == nil else { return }
      if event.name == "SHUTDOWN" { sawShutdown = true }
      guard filter.passes(event) else { return }
      let message = JSONVariant.object(["event": .string(event.name), "data": event.data, "timestamp": event.timestamp])
      if call.hasUnsent {
        unread += weight(message) + (unweighed.map(weight) ?? 0)
        unweighed = nil
      } else {
        unread = 0
        unweighed = message
      }
      guard unread <= unreadLimit, (try? call.notify(message)) != nil else { return end.fulfil(.overflow) }
    }
    call.whenCallerGoes { end.fulfil(.callerGone) }
    let waiter = machine.disconnected.whenFulfilled { _ in end.fulfil(.machineGone) }
    let reason = await end.value
    machine.unsubscribe(subscription)
    machine.disconnected.forget(waiter)

    switch reason {
    case .overflow: return .object(["event": .string("OVERFLOW")])
    case .callerGone: return nil
    case .machineGone:
      if !sawShutdown, filter.passes("SHUTDOWN") {
        let data = JSONVariant.object(["guest": .boolean(false), "reason": .string("disconnected")])
        try call.notify(.object(["event": .string("SHUTDOWN"), "data": data]))
      }
      await call.sent(within: Self.farewell)
      call.hangUp()
      return nil
    }
  }
}
