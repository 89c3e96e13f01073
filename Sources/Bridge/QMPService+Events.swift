import Logging
import Machine
import QAPI
import QMP
import SystemdEvent
import SystemdJSON
import Varlink

extension QMPService {
  /// Streams events until the caller or QEMU goes. A caller that leaves too much unread is disconnected, rather than being shown
  /// a stream with a gap.
  func subscribeEvents(_ call: VarlinkCall) async throws -> JSONVariant? {
    let filter: Set<String>? =
      if let names = call.parameters["filter"]?.elements, !names.isEmpty { Set(names.compactMap(\.string)) } else { nil }
    for name in filter ?? [] where name != "READY" && translation.event(name) == nil { throw VarlinkError.invalidParameter("filter") }
    try call.notify(.object(["event": .string("READY")]))

    let over = Promise<Void>()
    let subscription = machine.subscribe { event in
      guard over.result == nil, filter?.contains(event.name) ?? true else { return }
      do { try call.notify(self.message(of: event)) } catch { over.fulfil() }
    }
    defer { machine.unsubscribe(subscription) }
    call.whenCallerGoes { over.fulfil() }
    let waiter = machine.disconnected.whenFulfilled { _ in over.fulfil() }
    defer { machine.disconnected.forget(waiter) }
    await over.value
    await idle()
    call.hangUp()
    return nil
  }

  private func message(of event: QMPEvent) -> JSONVariant {
    var message: [(String, JSONVariant)] = [("event", .string(event.name))]
    if let timestamp = event.timestamp { message.append(("timestamp", timestamp)) }
    guard let described = translation.event(event.name) else { return .object(message) }
    do throws(ValueError) {
      let payload = try translation.payload(of: described, event.data)
      message.append((described.field, payload))
    } catch {
      logger.warning("the data of QEMU's event \(event.name) is not of its type: \(error)")
    }
    return .object(message)
  }
}
