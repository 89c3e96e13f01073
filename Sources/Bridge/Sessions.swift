public import Logging
public import Machine
import QMP
import Relay
public import SystemdEvent
public import Varlink

/// The upgraded sessions: each a monitor of its own, and a relay between it and the client.
@EventLoopActor
public final class Sessions {
  private let machine: Machine
  private let logger: Logger
  private var relays: [String: Relay] = [:]
  private var empty: Promise<Void>?

  public init(machine: Machine, logger: Logger) {
    self.machine = machine
    self.logger = logger
  }

  /// Makes a monitor for the caller and turns the connection over to it. Returns when the session has begun; it ends by
  /// itself.
  public func open(_ call: VarlinkCall) async throws {
    let pair = try SocketPair()
    let monitor = try await machine.monitors.add(on: pair.theirs)
    var logger = logger
    logger[metadataKey: "session"] = "\(monitor.id)"
    let ours = pair.takeOurs()
    let client: (input: CInt, output: CInt)?
    var failure: (any Error)?
    do {
      client = try await call.upgrade(nil)?.take()
    } catch {
      client = nil
      failure = error
    }
    // With no client, whatever the reason, the relay has only to bring the monitor to rest.
    let relay = try Relay(client: client, monitor: ours)
    relays[monitor.id] = relay
    if client != nil {
      logger.info(
        "session opened", metadata: ["uid": "\(call.peer.user ?? .max)", "pid": "\(call.peer.process ?? 0)"])
    }
    startTask { await self.end(monitor, relay, logger) }
    if let failure { throw failure }
  }

  /// Waits for the session's end, and clears up.
  private func end(_ monitor: Monitors.Monitor, _ relay: Relay, _ logger: Logger) async {
    if await relay.drained.value == .drained {
      do {
        try await machine.monitors.remove(monitor)
      } catch .qmp(.disconnected) {
        // QEMU took it along.
      } catch {
        logger.error("the monitor could not be removed: \(error)")
      }
    }
    await relay.deliver()
    relays[monitor.id] = nil
    if relays.isEmpty { empty?.fulfil() }
    logger.info("session closed")
    await relay.linger()
  }

  /// Ends all sessions, and waits for that, but no longer than `limit`.
  public func stop(within limit: Duration) async {
    for relay in relays.values { relay.stop(because: "the daemon stops") }
    await finished(within: limit)
  }

  /// Waits until every session has ended and its client has what it is owed, but no longer than `limit`.
  public func finished(within limit: Duration) async {
    guard !relays.isEmpty else { return }
    let empty = Promise<Void>()
    self.empty = empty
    _ = await empty.value(within: limit)
  }
}
