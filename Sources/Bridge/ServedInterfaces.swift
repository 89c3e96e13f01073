import Interfaces
public import SystemdEvent
public import Varlink

/// The definitions of all that is always served. ``QMPService`` brings its own, once QEMU has described itself.
@EventLoopActor
public enum ServedInterfaces {
  /// Adds them to `server`, for the services to bind their methods to. To parse them takes milliseconds, which are there while QEMU
  /// starts.
  public static func add(to server: VarlinkServer) throws {
    try server.add(VarlinkInterface(parsing: Interfaces.machineInstance, kinds: ["SubscribeEvents": .more]))
    try server.add(VarlinkInterface(parsing: Interfaces.virtualMachineInstance))
    try server.add(VarlinkInterface(parsing: Interfaces.qemuMachineInstance, kinds: ["AcquireQMP": .upgrade]))
    try server.add(VarlinkInterface(parsing: Interfaces.sessions, kinds: ["Watch": .more]))
    try server.add(VarlinkInterface(parsing: Interfaces.monitors, kinds: ["Watch": .more]))
  }
}
