import CSystemd
import Glibc
import SystemPackage

/// What a descriptor is ready for, or what one waits for; `epoll_event.events` by another name.
public struct Readiness: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let readable = Readiness(rawValue: EPOLLIN.rawValue)
  public static let writable = Readiness(rawValue: EPOLLOUT.rawValue)
  /// Both directions are over. Reported whether asked for or not.
  public static let hangUp = Readiness(rawValue: EPOLLHUP.rawValue)
  /// An error waits at the descriptor. Reported whether asked for or not.
  public static let error = Readiness(rawValue: EPOLLERR.rawValue)
}

/// How a child process ended.
public enum ExitStatus: Equatable, Sendable, CustomStringConvertible {
  /// It ended by itself, with this status.
  case exited(CInt)
  /// This signal ended it.
  case signaled(CInt)
  /// It has ended, and how is told to the process alone that started it.
  case unknown

  public var description: String {
    switch self {
    case .exited(let status): "exited with status \(status)"
    case .signaled(let signal): "was killed by signal \(signal)"
    case .unknown: "has ended"
    }
  }
}

extension ExitStatus {
  /// How the process of a pidfd has ended, which it must have.
  fileprivate init(reaping process: CInt) {
    var information = siginfo_t()
    guard waitid(P_PIDFD, id_t(process), &information, CInt(WEXITED | WNOHANG)) == 0, information.si_code != 0 else {
      self = .unknown
      return
    }
    self.init(information)
  }

  /// As waitid(2) tells it.
  fileprivate init(_ information: siginfo_t) {
    let status = information._sifields._sigchld.si_status
    self = information.si_code == CInt(CLD_EXITED) ? .exited(status) : .signaled(status)
  }
}

/// One source of events on ``EventLoop/shared``. It is live as long as somebody holds it.
@EventLoopActor
public final class EventSource {
  private let source: OpaquePointer

  /// Keeps a handler alive for the C side; released by sd-event's destroy callback and nowhere else.
  private final class Context<Argument> {
    let handler: @EventLoopActor (Argument) -> Void
    init(_ handler: @escaping @EventLoopActor (Argument) -> Void) { self.handler = handler }

    /// Calls the handler behind a callback's `userdata`, then whatever it made ready to run.
    nonisolated static func dispatch(_ userdata: UnsafeMutableRawPointer?, _ argument: Argument) -> CInt where Argument: Sendable {
      guard let userdata else { return -EINVAL }
      // Borrowed from the source for this call: a handler may drop the source, and with it the context.
      let context = Unmanaged<Context<Argument>>.fromOpaque(userdata).takeUnretainedValue()
      let handler = context.handler
      EventLoop.shared.willRunReadyJobs()
      EventLoopActor.assumeIsolated { handler(argument) }
      EventLoop.shared.runReadyJobs()
      return 0
    }
  }

  private init<Argument>(
    _ call: String, _ context: Context<Argument>,
    _ add: (inout OpaquePointer?, UnsafeMutableRawPointer) -> CInt
  ) throws(SystemdError) {
    let retained = Unmanaged.passRetained(context)
    var source: OpaquePointer?
    let result = add(&source, retained.toOpaque())
    guard result >= 0, let source else {
      retained.release()
      throw SystemdError(call, Errno(rawValue: -result))
    }
    sd_event_source_set_destroy_callback(source) { userdata in
      guard let userdata else { return }
      Unmanaged<AnyObject>.fromOpaque(userdata).release()
    }
    self.source = source
  }

  isolated deinit { sd_event_source_disable_unref(source) }

  /// Ends it at once: a descriptor may be closed after this. Letting go of the object ends it too, but not always before the
  /// next line.
  public func cancel() {
    mustSucceed("sd_event_source_set_enabled", sd_event_source_set_enabled(source, CInt(SD_EVENT_OFF)))
  }

  /// Calls `handler` whenever `descriptor` is ready for any of `interest`, hung up or in error. The descriptor stays the
  /// caller's, and must stay open as long as this source is held: epoll would go on reporting an open file that has another
  /// descriptor, for a source that is no more.
  public static func descriptor(
    _ descriptor: CInt, _ interest: Readiness, handler: @escaping @EventLoopActor (Readiness) -> Void
  ) throws(SystemdError) -> EventSource {
    let source = try EventSource("sd_event_add_io", Context(handler)) { source, userdata in
      sd_event_add_io(
        EventLoop.shared.event, &source, descriptor, interest.rawValue,
        { _, _, ready, userdata in Context<Readiness>.dispatch(userdata, Readiness(rawValue: ready)) }, userdata)
    }
    source.interest = interest
    return source
  }

  /// Calls `handler` once, `delay` from now on the monotonic clock.
  public static func timer(
    after delay: Duration, handler: @escaping @EventLoopActor () -> Void
  ) throws(SystemdError) -> EventSource {
    try EventSource("sd_event_add_time_relative", Context<Void> { _ in handler() }) { source, userdata in
      sd_event_add_time_relative(
        EventLoop.shared.event, &source, CLOCK_MONOTONIC, delay.microseconds, 1000,
        { _, _, userdata in Context<Void>.dispatch(userdata, ()) }, userdata)
    }
  }

  /// Calls `handler` each time this process gets `signal`, which must be blocked in every thread.
  public static func signal(
    _ signal: CInt, handler: @escaping @EventLoopActor () -> Void
  ) throws(SystemdError) -> EventSource {
    try EventSource("sd_event_add_signal", Context<Void> { _ in handler() }) { source, userdata in
      sd_event_add_signal(
        EventLoop.shared.event, &source, signal, { _, _, userdata in Context<Void>.dispatch(userdata, ()) }, userdata)
    }
  }

  /// Calls `handler` once, when the child `process` has ended, and reaps it. sd-event watches it by pidfd.
  public static func child(
    _ process: CInt, handler: @escaping @EventLoopActor (ExitStatus) -> Void
  ) throws(SystemdError) -> EventSource {
    try EventSource("sd_event_add_child", Context(handler)) { source, userdata in
      sd_event_add_child(
        EventLoop.shared.event, &source, process, CInt(WEXITED),
        { _, information, userdata in
          guard let information else { return -EINVAL }
          return Context<ExitStatus>.dispatch(userdata, ExitStatus(information.pointee))
        }, userdata)
    }
  }

  /// Calls `handler` once, when a process has ended, whoever started it; a child is reaped.
  ///
  /// - Parameter process: of a ``ProcessDescriptor``, which must be held as long as this source.
  public static func process(
    _ process: CInt, handler: @escaping @EventLoopActor (ExitStatus) -> Void
  ) throws(SystemdError) -> EventSource {
    let source = try EventSource.descriptor(process, .readable) { _ in handler(ExitStatus(reaping: process)) }
    // It stays readable, and is told once.
    try check("sd_event_source_set_enabled", sd_event_source_set_enabled(source.source, CInt(SD_EVENT_ONESHOT)))
    return source
  }

  /// Calls `handler` once, when the dispatch under way is over.
  public static func deferred(handler: @escaping @EventLoopActor () -> Void) throws(SystemdError) -> EventSource {
    try EventSource("sd_event_add_defer", Context<Void> { _ in handler() }) { source, userdata in
      sd_event_add_defer(EventLoop.shared.event, &source, { _, userdata in Context<Void>.dispatch(userdata, ()) }, userdata)
    }
  }

  /// Calls `handler` once, when the loop has nothing else to do: all that could be written has been.
  public static func whenIdle(handler: @escaping @EventLoopActor () -> Void) throws(SystemdError) -> EventSource {
    let source = try deferred(handler: handler)
    try check("sd_event_source_set_priority", sd_event_source_set_priority(source.source, Int64(SD_EVENT_PRIORITY_IDLE)))
    return source
  }

  /// What a descriptor's source waits for from now on. The empty set waits for hang-up and errors only.
  public var interest: Readiness = [] {
    didSet {
      guard interest != oldValue else { return }
      mustSucceed("sd_event_source_set_io_events", sd_event_source_set_io_events(source, interest.rawValue))
    }
  }

  /// Whether events are dispatched at all.
  public var isEnabled = true {
    didSet {
      guard isEnabled != oldValue else { return }
      let state = isEnabled ? SD_EVENT_ON : SD_EVENT_OFF
      mustSucceed("sd_event_source_set_enabled", sd_event_source_set_enabled(source, CInt(state)))
    }
  }
}

extension Duration {
  /// Whole microseconds, sd-event's unit; at least 0.
  package var microseconds: UInt64 {
    let (seconds, attoseconds) = components
    return UInt64(max(0, seconds)) * 1_000_000 + UInt64(max(0, attoseconds / 1_000_000_000_000))
  }
}

extension Optional where Wrapped == EventSource {
  /// Ends the source, if there is one, and lets go of it.
  @EventLoopActor public mutating func cancel() {
    self?.cancel()
    self = nil
  }
}
