import Interfaces
public import SystemdEvent
public import Varlink

/// `io.systemd.QemuMachineInstance`: the upgrade to raw QMP.
@EventLoopActor
public enum QemuMachineInstanceService {
  /// Adds the interface to `server` and serves the calls.
  public static func add(to server: VarlinkServer, sessions: Sessions) throws {
    try server.add(VarlinkInterface(parsing: Interfaces.qemuMachineInstance, kinds: ["AcquireQMP": .upgrade]))
    try server.bind("io.systemd.QemuMachineInstance.AcquireQMP", .upgrade) { call in
      try await sessions.open(call)
      return nil
    }
  }
}
