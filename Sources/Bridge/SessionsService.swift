import Relay
public import SystemdEvent
import SystemdJSON
public import Varlink

/// `io.qmpvarlink.Sessions`: who has a session, and an end to it.
@EventLoopActor
public struct SessionsService {
  private static let name = "io.qmpvarlink.Sessions"
  private let sessions: Sessions

  /// Adds the interface to `server` and serves the calls.
  public static func add(to server: VarlinkServer, sessions: Sessions) throws {
    let service = SessionsService(sessions: sessions)
    try server.bind("\(name).List") { _ in .object(["sessions": service.list()]) }
    try server.bind("\(name).Close") { call in try service.close(call) }
    try server.bind("\(name).Watch", .more) { call in try await service.watch(call) }
  }

  private func list() -> JSONVariant { .array(sessions.all.map(\.description)) }

  private func close(_ call: VarlinkCall) throws(VarlinkError) -> JSONVariant? {
    guard let id = call.parameters["id"]?.string else { throw .invalidParameter("id") }
    guard let session = sessions.session(id) else {
      throw VarlinkError("\(Self.name).NoSuchSession", .object(["id": .string(id)]))
    }
    session.relay.stop(because: "closed by user \(call.peer.user.map(String.init) ?? "unknown")")
    return nil
  }

  /// Streams changes until the caller goes. One that leaves too much unread is disconnected, rather than being shown a stream
  /// with a gap.
  private func watch(_ call: VarlinkCall) async throws -> JSONVariant? {
    try call.notify(.object(["change": .string(Sessions.Change.current.rawValue), "sessions": list()]))
    let over = Promise<Void>()
    let watcher = sessions.watch { change, session in
      guard over.result == nil else { return }
      let message = JSONVariant.object(["change": .string(change.rawValue), "sessions": .array([session.description])])
      do { try call.notify(message) } catch { over.fulfil() }
    }
    defer { sessions.unwatch(watcher) }
    call.whenCallerGoes { over.fulfil() }
    await over.value
    call.hangUp()
    return nil
  }
}
