import Interfaces
public import Machine
import QMP
public import SystemdEvent
import SystemdJSON
public import Varlink

/// `io.systemd.MachineInstance`, the interface that systemd-vmspawn serves, and `io.systemd.VirtualMachineInstance`.
@EventLoopActor
public struct MachineInstanceService {
  static let name = "io.systemd.MachineInstance"
  private let machine: Machine

  /// Adds both interfaces to `server` and serves the calls.
  public static func add(to server: VarlinkServer, machine: Machine) throws {
    let service = MachineInstanceService(machine: machine)
    try server.add(VarlinkInterface(parsing: Interfaces.machineInstance, kinds: ["SubscribeEvents": .more]))
    try server.add(VarlinkInterface(parsing: Interfaces.virtualMachineInstance))
    try server.bind("\(name).Describe") { _ in try await service.describe() }
    for (method, operation) in operations {
      try server.bind("\(name).\(method)") { _ in
        try await operation(machine)
        return nil
      }
    }
    try StorageMethods.bind(to: server, storage: machine.storage)
    try server.bind("\(name).SubscribeEvents", .more) { call in try await service.subscribeEvents(call) }
  }

  /// The methods without parameters and without results.
  private static let operations: KeyValuePairs<String, @EventLoopActor @Sendable (Machine) async throws(MachineError) -> Void> = [
    "Pause": { machine throws(MachineError) in try await machine.pause() },
    "Resume": { machine throws(MachineError) in try await machine.resume() },
    "PowerOff": { machine throws(MachineError) in try await machine.powerOff() },
    "Reboot": { machine throws(MachineError) in try await machine.reset() },
    "Terminate": { machine throws(MachineError) in try await machine.terminate() },
  ]

  private func describe() async throws(MachineError) -> JSONVariant {
    let status = try await machine.status()
    return .object(["running": .boolean(status.isRunning), "status": .string(status.name)])
  }

  /// Streams events until the caller or the machine goes. A caller that leaves too much unread is disconnected, rather than
  /// being shown a stream with a gap.
  private func subscribeEvents(_ call: VarlinkCall) async throws -> JSONVariant? {
    let filter: Set<String>? =
      if let names = call.parameters["filter"]?.elements, !names.isEmpty { Set(names.compactMap(\.string)) } else { nil }
    try call.notify(.object(["event": .string("READY")]))

    let over = Promise<Void>()
    var sawShutdown = false
    let subscription = machine.subscribe { event in
      guard over.result == nil else { return }
      if event.name == "SHUTDOWN" { sawShutdown = true }
      guard filter?.contains(event.name) ?? true else { return }
      let message = JSONVariant.object(["event": .string(event.name), "data": event.data, "timestamp": event.timestamp])
      do { try call.notify(message) } catch { over.fulfil() }
    }
    defer { machine.unsubscribe(subscription) }
    call.whenCallerGoes { over.fulfil() }
    let waiter = machine.disconnected.whenFulfilled { _ in over.fulfil() }
    defer { machine.disconnected.forget(waiter) }
    await over.value

    if machine.disconnected.result != nil, !sawShutdown, !call.callerIsGone, filter?.contains("SHUTDOWN") ?? true {
      let data = JSONVariant.object(["guest": .boolean(false), "reason": .string("disconnected")])
      try call.notify(.object(["event": .string("SHUTDOWN"), "data": data]))
    }
    await idle()
    call.hangUp()
    return nil
  }
}

/// Waits until the loop has nothing to do, which is when everything that can be sent has been; at most a second, should it
/// never rest.
@EventLoopActor
public func idle() async {
  let idle = Promise<Void>()
  guard let source = try? EventSource.whenIdle(handler: { idle.fulfil() }) else { return }
  _ = await idle.value(within: .seconds(1))
  withExtendedLifetime(source) {}
}
