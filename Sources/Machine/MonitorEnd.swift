import Glibc
import SystemdEvent

/// Our end of an added monitor's socket, beside the one that its user speaks on: the monitor is disconnected by it before it is removed.
///
/// QEMU 11.1 takes a removed monitor's handlers away in its main thread, one field after the other. Its monitor thread asks every connected
/// monitor whether it reads, whenever there is something to read on any: between two of those fields it asks a monitor that is null
/// already, and QEMU crashes. It does not ask a monitor that has no connection. So QEMU is given the end of file, in its monitor thread,
/// and the removal comes when it has closed its own end.
@EventLoopActor
final class MonitorEnd {
  private let descriptor: OwnedDescriptor
  private let closed = Promise<Void>()
  private var source: EventSource?

  /// How long QEMU may take to close its end. It does not if somebody else has deleted the monitor: then nobody reads there.
  private static let patience = Duration.seconds(1)

  /// - Parameter socket: stays the caller's.
  init(of socket: borrowing OwnedDescriptor) throws(SystemdError) { descriptor = try socket.duplicate() }

  /// - Parameter socket: a descriptor for this alone.
  init(owning socket: consuming OwnedDescriptor) { descriptor = socket }

  // The source goes before the descriptor that it watches.
  isolated deinit { source.cancel() }

  /// Disconnects the monitor, which must be drained, and waits until QEMU has closed its end. What QEMU sent before can still be read.
  func disconnect() async {
    shutdown(descriptor.raw, CInt(SHUT_WR))
    // Nothing but the hang-up, which is reported whether asked for or not.
    source = try? .descriptor(descriptor.raw, []) { [weak self] _ in
      self?.source.cancel()
      self?.closed.fulfil()
    }
    _ = await closed.value(within: Self.patience)
    source.cancel()
    source = nil
  }
}
