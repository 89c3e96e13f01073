import Glibc
import Machine
import SystemPackage
public import SystemdEvent
import SystemdJSON
public import Varlink

/// `io.qmpvarlink.Monitors`: monitors on demand.
@EventLoopActor
public struct MonitorsService {
  private static let name = "io.qmpvarlink.Monitors"
  /// The longest id, in bytes. QEMU has no limit, and repeats the id in every error.
  private static let longestID = 128
  /// How many changes are held while a list is made. A watch that would miss one is ended.
  private static let mostHeld = 4096
  private let monitors: AddedMonitors

  /// Adds the interface to `server` and serves the calls.
  public static func add(to server: VarlinkServer, monitors: AddedMonitors) throws {
    let service = MonitorsService(monitors: monitors)
    try server.bind("\(name).Add") { call in try await mapped { try await service.add(call) } }
    try server.bind("\(name).Remove") { call in try await mapped { try await service.remove(call) } }
    try server.bind("\(name).List") { _ in try await mapped { .object(["monitors": try await monitors.list()]) } }
    try server.bind("\(name).Watch", .more) { call in try await mapped { try await service.watch(call) } }
  }

  /// Gives a lack of QEMU's this interface's own name.
  private static func mapped(_ body: () async throws -> JSONVariant?) async throws -> JSONVariant? {
    do {
      return try await body()
    } catch MachineError.notSupported(let reason) {
      throw VarlinkError("\(name).Unsupported", .object(["reason": .string(reason)]))
    }
  }

  private func add(_ call: VarlinkCall) async throws -> JSONVariant? {
    let parameters = call.parameters
    guard let id = parameters["id"]?.string, Self.isIdentifier(id), !id.hasPrefix(Monitors.prefix) else {
      throw VarlinkError.invalidParameter("id")
    }
    let sources = ["listen", "fileDescriptorIndex", "chardev"].filter { parameters[$0].map { !$0.isNull } ?? false }
    guard let source = sources.first else { throw VarlinkError.invalidParameter("listen") }
    // One too many is what is wrong.
    if sources.count > 1 { throw VarlinkError.invalidParameter(sources[1]) }
    let clients: AddedMonitor.Clients
    switch source {
    case "listen": clients = .listening(try Self.listen(at: parameters[source]?.string ?? ""))
    case "chardev":
      guard let chardev = parameters[source]?.string, !chardev.isEmpty, !chardev.hasPrefix(Monitors.prefix) else {
        throw VarlinkError.invalidParameter(source)
      }
      clients = .chardev(chardev)
    default: clients = try Self.clients(try call.takeDescriptor(source))
    }
    try await monitors.add(id, clients, isPretty: parameters["pretty"]?.boolean ?? false)
    return nil
  }

  /// QEMU's rule for the ids of objects, checked before it is asked.
  private static func isIdentifier(_ id: String) -> Bool {
    func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) }
    func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
    guard id.utf8.count <= longestID, let first = id.utf8.first, isLetter(first) else { return false }
    return id.utf8.allSatisfy { isLetter($0) || isDigit($0) || "._-".utf8.contains($0) }
  }

  private static func clients(_ socket: consuming OwnedDescriptor) throws -> AddedMonitor.Clients {
    guard let kind = socket.streamSocket else {
      throw SystemdError("a stream socket is needed that listens or is connected", Errno(rawValue: ENOTSOCK))
    }
    if kind == .listening { return .listening(try ListeningSocket(socket)) }
    return .connected(socket.take())
  }

  private static func listen(at path: String) throws -> ListeningSocket {
    guard path.hasPrefix("/"), !path.hasSuffix("/") else { throw VarlinkError.invalidParameter("listen") }
    return try ListeningSocket(at: FilePath(path))
  }

  private func remove(_ call: VarlinkCall) async throws -> JSONVariant? {
    guard let id = call.parameters["id"]?.string else { throw VarlinkError.invalidParameter("id") }
    try await monitors.remove(id)
    return nil
  }

  /// Streams changes until the caller goes. One that leaves too much unread is disconnected, rather than being shown a stream
  /// with a gap.
  private func watch(_ call: VarlinkCall) async throws -> JSONVariant? {
    func message(_ change: AddedMonitors.Change, _ monitors: JSONVariant) -> JSONVariant {
      .object(["change": .string(change.rawValue), "monitors": monitors])
    }
    let over = Promise<Void>()
    // What changes while QEMU is asked for the list comes behind it.
    var held: [JSONVariant]? = []
    let watcher = monitors.watch { change, monitor in
      guard over.result == nil else { return }
      let news = message(change, .array([monitor]))
      if let count = held?.count {
        if count < Self.mostHeld { held?.append(news) } else { over.fulfil() }
      } else {
        do { try call.notify(news) } catch { over.fulfil() }
      }
    }
    defer { monitors.unwatch(watcher) }
    try call.notify(message(.current, try await monitors.list()))
    for news in held ?? [] { try call.notify(news) }
    held = nil
    call.whenCallerGoes { over.fulfil() }
    await over.value
    call.hangUp()
    return nil
  }
}
