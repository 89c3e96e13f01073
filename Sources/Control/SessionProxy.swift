import Glibc
public import SystemPackage
public import SystemdEvent

/// Makes a UNIX socket of which each connection is a QMP session of its own, for programs that want the path of a QMP socket.
@EventLoopActor
public final class SessionProxy {
  /// How many connections are served at once. Further ones wait.
  private static let mostConnections = 64

  private let socket: PrivateSocket
  private let connect: @EventLoopActor @Sendable () async throws(ControlError) -> MachineConnection
  private let access: String?
  private let mode: String?
  private let onFailure: (ControlError) -> Void
  private var count = 0
  private var pumps: [ObjectIdentifier: StreamPump] = [:]
  private var room: Promise<Void>?
  private var isClosed = false

  public var path: FilePath { socket.path }

  /// - Parameters:
  ///   - access: as `MachineConnection.acquireQMP` has it.
  ///   - mode: likewise.
  ///   - connect: connects to the machine, for each session.
  ///   - onFailure: is told why a connection was closed instead of served.
  public init(
    _ socket: PrivateSocket, access: String?, mode: String?,
    connect: @escaping @EventLoopActor @Sendable () async throws(ControlError) -> MachineConnection,
    onFailure: @escaping (ControlError) -> Void
  ) {
    self.socket = socket
    self.access = access
    self.mode = mode
    self.connect = connect
    self.onFailure = onFailure
  }

  /// Serves connections until ``close()``.
  public func run() async {
    while !isClosed {
      if count >= Self.mostConnections {
        let room = Promise<Void>()
        self.room = room
        await room.value
        continue
      }
      guard let client = await socket.accept() else { return }
      count += 1
      let raw = client.take()
      startTask { [self] in
        await serve(OwnedDescriptor(owning: raw))
        count -= 1
        room?.fulfil()
        room = nil
      }
    }
  }

  /// Ends the socket and all sessions.
  public func close() {
    isClosed = true
    socket.close()
    for pump in pumps.values { pump.close() }
    room?.fulfil()
  }

  private func serve(_ client: consuming OwnedDescriptor) async {
    do {
      let connection = try await connect()
      let session = try await connection.acquireQMP(access: access, mode: mode)
      guard !isClosed else { return }
      let pump = try StreamPump(client, session)
      pumps[ObjectIdentifier(pump)] = pump
      await pump.ended.value
      pumps[ObjectIdentifier(pump)] = nil
      // What carries the session, if it is on another host.
      withExtendedLifetime(connection) {}
    } catch let error as ControlError {
      onFailure(error)
    } catch {
      onFailure(ControlError(.failed, "\(error)"))
    }
  }
}
