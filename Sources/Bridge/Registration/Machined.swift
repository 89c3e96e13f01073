import Glibc
import SystemPackage
public import SystemdEvent
import SystemdJSON
import Varlink

/// Whose service manager and machines something belongs to: the system's, or those of the user.
public enum RuntimeScope: String, Sendable, CaseIterable {
  case system, user

  /// What a program works in unless it is told.
  public static var own: RuntimeScope { getuid() == 0 ? .system : .user }
}

/// One systemd-machined, the system's or a user's.
@EventLoopActor
public struct Machined {
  public let scope: RuntimeScope
  private let socket: FilePath

  /// - Returns: nil if it cannot be known where it listens: for a user's, without XDG_RUNTIME_DIR.
  public init?(_ scope: RuntimeScope) {
    let folder: String
    switch scope {
    case .system: folder = "/run"
    case .user:
      guard let runtime = getenv("XDG_RUNTIME_DIR").map({ String(cString: $0) }), !runtime.isEmpty else { return nil }
      folder = runtime
    }
    self.scope = scope
    socket = FilePath(folder).appending("systemd/machine/io.systemd.Machine")
  }

  /// Registers a machine.
  ///
  /// - Parameters:
  ///   - limit: how long machined may take, polkit's questions included.
  ///   - cancelled: fulfilled by somebody who does not want to wait any more.
  func register(_ machine: MachineDescription, within limit: Duration, cancelled: Promise<Void>) async throws(VarlinkClientError) {
    let client = try VarlinkClient(connectingTo: socket)
    let canceller = cancelled.whenFulfilled { client.close() }
    defer { cancelled.forget(canceller) }
    do {
      _ = try await client.call("io.systemd.Machine.Register", machine.parameters, within: limit)
    } catch .refused(let error) where error.name == "io.systemd.Machine.MachineExists" {
      // A daemon that was killed could not take its registration back.
      guard try await isLeftover(of: machine, client, limit) else { throw .refused(error) }
      _ = try await client.call("io.systemd.Machine.Unregister", .object(["name": .string(machine.name)]), within: limit)
      _ = try await client.call("io.systemd.Machine.Register", machine.parameters, within: limit)
    }
  }

  /// Whether the machine that is registered under this name is this one: it has the same QEMU, or its control socket was where ours is.
  private func isLeftover(
    of machine: MachineDescription, _ client: VarlinkClient, _ limit: Duration
  ) async throws(VarlinkClientError) -> Bool {
    let registered = try await client.call("io.systemd.Machine.List", .object(["name": .string(machine.name)]), within: limit)
    if registered["controlAddress"]?.string == machine.controlAddress.string { return true }
    guard let leader = machine.leader?.variant else { return false }
    return registered["leader"] == leader
  }

  /// Takes a registration back.
  ///
  /// - Parameter leader: the machine's, if the name alone may be somebody else's.
  func unregister(_ name: String, leader: ProcessIdentity? = nil, within limit: Duration) async throws(VarlinkClientError) {
    let client = try VarlinkClient(connectingTo: socket)
    _ = try await client.call(
      "io.systemd.Machine.Unregister", .object(["name": .string(name), "pid": leader?.variant]), within: limit)
  }
}
