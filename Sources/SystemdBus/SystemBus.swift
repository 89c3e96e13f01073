import CSystemd
import Glibc
import SystemPackage
public import SystemdEvent

/// A connection to the system's message bus, over sd-bus, on the event loop. Nothing here waits for the bus.
@EventLoopActor
public final class SystemBus {
  /// Where the bus is, unless `DBUS_SYSTEM_BUS_ADDRESS` says otherwise.
  private nonisolated static let standardSocket = "/run/dbus/system_bus_socket"

  private let bus: OpaquePointer

  /// Whether there is such a bus, as far as can be told without connecting.
  public nonisolated static var isThere: Bool {
    getenv("DBUS_SYSTEM_BUS_ADDRESS") != nil || access(standardSocket, F_OK) == 0
  }

  /// Begins to connect. What is sent meanwhile waits until the bus has let us in; where it does not, calls fail.
  ///
  /// - Throws: when nobody listens there.
  public init() throws(SystemdError) {
    var opened: OpaquePointer?
    try check("sd_bus_open_system", sd_bus_open_system(&opened))
    guard let opened else { throw SystemdError("sd_bus_open_system", .noMemory) }
    bus = opened
    // The end of the loop would wait for the bus.
    try check("sd_bus_set_close_on_exit", sd_bus_set_close_on_exit(bus, 0))
    try check("sd_bus_attach_event", sd_bus_attach_event(bus, EventLoop.shared.event, CInt(SD_EVENT_PRIORITY_NORMAL)))
  }

  // What is queued goes with it: to flush would be to wait.
  isolated deinit { sd_bus_close_unref(bus) }

  /// Whether it is open, or still on its way to that.
  public var isOpen: Bool { sd_bus_is_open(bus) > 0 }

  /// Who is called.
  public struct Method: Sendable {
    let destination: String
    let path: String
    let interface: String
    let member: String

    public init(destination: String, path: String, interface: String, member: String) {
      self.destination = destination
      self.path = path
      self.interface = interface
      self.member = member
    }
  }

  /// Calls a method.
  ///
  /// - Parameter onReply: gets the reply or an error, once; an error also when the connection ends. It does not come any more when the
  ///   call has been let go of.
  /// - Returns: the call under way, to be held as long as its reply matters.
  public func call(
    _ method: Method, _ arguments: [BusValue], onReply: @escaping @EventLoopActor (BusMessage) -> Void
  ) throws(SystemdError) -> BusCall {
    let message = try message(method, arguments)
    let context = Unmanaged.passRetained(BusCall.Context(onReply))
    var slot: OpaquePointer?
    let result = sd_bus_call_async(bus, &slot, message.pointer, BusCall.callback, context.toOpaque(), .max)
    guard result >= 0, let slot else {
      context.release()
      throw SystemdError("sd_bus_call_async", Errno(rawValue: -result))
    }
    return BusCall(slot)
  }

  /// Calls a method whose reply nobody waits for.
  public func send(_ method: Method, _ arguments: [BusValue]) throws(SystemdError) {
    let message = try message(method, arguments)
    try check("sd_bus_message_set_expect_reply", sd_bus_message_set_expect_reply(message.pointer, 0))
    try check("sd_bus_send", sd_bus_send(bus, message.pointer, nil))
  }

  private func message(_ method: Method, _ arguments: [BusValue]) throws(SystemdError) -> BusMessage {
    var pointer: OpaquePointer?
    try check(
      "sd_bus_message_new_method_call",
      sd_bus_message_new_method_call(bus, &pointer, method.destination, method.path, method.interface, method.member))
    guard let pointer else { throw SystemdError("sd_bus_message_new_method_call", .noMemory) }
    let message = BusMessage(owning: pointer)
    for argument in arguments { try message.append(argument) }
    return message
  }
}

/// A call under way. Letting go of it is to have nothing to do with its reply.
@EventLoopActor
public final class BusCall {
  private let slot: OpaquePointer

  /// Keeps a handler alive for the C side; released by the slot's destroy callback and nowhere else.
  final class Context {
    let handler: @EventLoopActor (BusMessage) -> Void
    init(_ handler: @escaping @EventLoopActor (BusMessage) -> Void) { self.handler = handler }
  }

  /// - Parameter slot: a reference, which is taken over, of a call whose user data is a retained ``Context``.
  init(_ slot: OpaquePointer) {
    self.slot = slot
    sd_bus_slot_set_destroy_callback(slot) { userdata in
      guard let userdata else { return }
      Unmanaged<Context>.fromOpaque(userdata).release()
    }
  }

  isolated deinit { sd_bus_slot_unref(slot) }

  nonisolated static let callback: sd_bus_message_handler_t = { message, userdata, _ in
    guard let message, let userdata else { return 0 }
    // Unsafe only in name: sd-bus calls on the loop's thread, and the message is valid for this call at least.
    nonisolated(unsafe) let borrowed = message
    // Borrowed from the slot for this call: the handler may let go of that.
    let context = Unmanaged<Context>.fromOpaque(userdata).takeUnretainedValue()
    let handler = context.handler
    EventLoopActor.assumeIsolated { handler(BusMessage(borrowing: borrowed)) }
    return 0
  }
}
