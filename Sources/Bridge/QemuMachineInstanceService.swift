public import SystemdEvent
import SystemdJSON
public import Varlink

/// `io.systemd.QemuMachineInstance`: the upgrade to raw QMP.
@EventLoopActor
public enum QemuMachineInstanceService {
  /// Adds the interface to `server` and serves the calls.
  public static func add(to server: VarlinkServer, sessions: Sessions) throws {
    try server.bind("io.systemd.QemuMachineInstance.AcquireQMP", .upgrade) { call in
      let named = call.parameters["access"]?.string
      guard let access = named.map({ Access(rawValue: $0) }) ?? .full else { throw VarlinkError.invalidParameter("access") }
      let wanted = call.parameters["mode"]?.string
      let mode = wanted.flatMap { SessionMode(rawValue: $0) }
      if wanted != nil, mode == nil { throw VarlinkError.invalidParameter("mode") }
      try await sessions.open(call, access: access, mode: mode)
      return nil
    }
  }
}
