import OrderedCollections
import QEMUJSON
import SystemdEvent
import SystemPackage

extension Command {
  /// The commands for character devices.
  static let chardevs: [Command] = [
    Command("query-chardev", returns: .array(.object)) { call throws(CommandFailure) in
      .array(
        call.qemu.chardevs.values.reversed().map { chardev in
          [
            "label": .string(chardev.id), "filename": .string(chardev.filename), "frontend-open": .boolean(chardev.frontend != nil),
          ]
        })
    },
    Command("chardev-add", [Parameter("id", .string), Parameter("backend", .object)]) { call throws(CommandFailure) in
      let id = call.string("id")
      let backend = try ChardevBackend(Arguments(call.arguments["backend"]?.members ?? QDict(), path: "backend."))
      guard call.qemu.chardevs[id] == nil else { throw CommandFailure("Chardev with id '\(id)' already exists") }
      try call.qemu.requireRoomForObject()
      do throws(OpenFailure) {
        call.qemu.chardevs[id] = try backend.open(id, descriptors: &call.monitor.descriptors, call.qemu)
      } catch {
        throw CommandFailure("Failed to add chardev '\(id)': \(error.reason)")
      }
      return .nothing
    },
    Command("chardev-remove", [Parameter("id", .string)]) { call throws(CommandFailure) in
      let id = call.string("id")
      guard let chardev = call.qemu.chardevs[id] else { throw CommandFailure("Chardev '\(id)' not found") }
      guard chardev.frontend == nil else { throw CommandFailure("Chardev '\(id)' is busy") }
      call.qemu.chardevs.removeValue(forKey: id)
      chardev.close()
      return .nothing
    },
  ]
}

/// What chardev-add is to make.
@EventLoopActor
enum ChardevBackend {
  case null
  /// A socket by the name that getfd gave it.
  case descriptor(name: String, isServer: Bool)
  case path(String, isServer: Bool)
  /// One that QEMU has and the simulator has not.
  case unsupported(String)

  private static let kinds = [
    "file", "serial", "parallel", "pipe", "socket", "udp", "pty", "null", "mux", "hub", "msmouse", "wctablet", "braille", "testdev",
    "stdio",
    "console", "spicevmc", "spiceport", "qemu-vdagent", "dbus", "vc", "ringbuf", "memory",
  ]

  /// Reads the `backend` of chardev-add.
  init(_ arguments: Arguments) throws(CommandFailure) {
    var backend = arguments
    let kind = try backend.enumeration("type", Self.kinds)
    guard kind == "null" || kind == "socket" else {
      self = .unsupported("the simulator has no \(kind) chardevs")
      return
    }
    var data = try backend.object("data")
    try data.take(Parameter("logfile", .string, optional: true))
    try data.take(Parameter("logappend", .boolean, optional: true))
    if kind == "null" {
      self = .null
    } else {
      var address = try data.object("addr")
      for name in ["tls-creds", "tls-authz"] { try data.take(Parameter(name, .string, optional: true)) }
      let isServer = try data.optionalBoolean("server") ?? true
      for name in ["wait", "nodelay", "telnet", "tn3270", "websocket"] { _ = try data.optionalBoolean(name) }
      for name in ["reconnect", "reconnect-ms"] { try data.take(Parameter(name, .integer, optional: true)) }
      self = try Self.socket(&address, isServer: isServer)
    }
    try data.finish()
    try backend.finish()
  }

  private static func socket(_ address: inout Arguments, isServer: Bool) throws(CommandFailure) -> Self {
    let kind = try address.enumeration("type", ["inet", "unix", "vsock", "fd"])
    var data = try address.object("data")
    let backend: Self
    switch kind {
    case "fd": backend = .descriptor(name: try data.string("str"), isServer: isServer)
    case "unix":
      backend = .path(try data.string("path"), isServer: isServer)
      for name in ["abstract", "tight"] { _ = try data.optionalBoolean(name) }
    default: return .unsupported("the simulator has no \(kind) sockets")
    }
    try data.finish()
    try address.finish()
    return backend
  }

  /// Makes the device. A descriptor that it names is taken out of `descriptors`, also when it turns out to be of no use.
  func open(_ id: String, descriptors: inout [String: HeldDescriptor], _ qemu: SimulatedQEMU) throws(OpenFailure) -> Chardev {
    let limit = qemu.configuration.longestUnsent
    switch self {
    case .null: return Chardev(null: id)
    case .unsupported(let reason): throw OpenFailure(reason: reason)
    case .path(let path, isServer: true): return Chardev(id, listening: try Listener(at: path), longestUnsent: limit)
    case .path(let path, isServer: false):
      let socket: OwnedDescriptor
      do throws(SystemdError) { socket = try .connected(to: FilePath(path)) } catch {
        throw OpenFailure(reason: "Failed to connect to '\(path)': \(error.errno)")
      }
      return Chardev(id, connected: socket, name: "unix:\(path)", longestUnsent: limit)
    case .descriptor(let name, let isServer):
      guard let held = descriptors.removeValue(forKey: name) else {
        throw OpenFailure(reason: "File descriptor named '\(name)' has not been found")
      }
      guard held.descriptor.isSocket else { throw OpenFailure(reason: "File descriptor '\(name)' is not a socket") }
      let socket: OwnedDescriptor
      do throws(SystemdError) { socket = try held.descriptor.duplicate() } catch { throw OpenFailure(reason: "\(error)") }
      if isServer { return Chardev(id, listening: try Listener(adopting: socket), longestUnsent: limit) }
      return Chardev(id, connected: socket, name: "fd:\(name)", longestUnsent: limit)
    }
  }
}
