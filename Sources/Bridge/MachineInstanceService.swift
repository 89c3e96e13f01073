public import Machine
public import SystemdEvent
import SystemdJSON
public import Varlink

/// `io.systemd.MachineInstance`, the interface that systemd-vmspawn serves, and `io.systemd.VirtualMachineInstance`.
@EventLoopActor
public struct MachineInstanceService {
  static let name = "io.systemd.MachineInstance"
  private let machine: Machine

  /// Adds both interfaces to `server` and serves the calls.
  ///
  /// - Parameter unreadLimit: how many bytes of events a subscriber may leave unread.
  public static func add(to server: VarlinkServer, machine: Machine, unreadLimit: Int) throws {
    let service = MachineInstanceService(machine: machine)
    try server.bind("\(name).Describe") { _ in try await service.describe() }
    for (method, operation) in operations {
      try server.bind("\(name).\(method)") { _ in
        try await operation(machine)
        return nil
      }
    }
    try StorageMethods.bind(to: server, storage: machine.storage)
    try server.bind("\(name).SubscribeEvents", .more) { call in
      try await EventStream(machine: machine, call: call, unreadLimit: unreadLimit).run()
    }
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
