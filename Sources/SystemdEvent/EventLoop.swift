import CSystemd
import DequeModule
import Glibc
import Synchronization

/// The process's one sd-event loop, which is also a Swift executor: code isolated to ``EventLoopActor`` runs on the
/// thread that is inside ``run()``, between event sources, and nowhere else.
///
/// Start tasks with ``startTask(_:)``: a task without this executor as its preference takes a detour over the global
/// thread pool at each resumption, which costs more than the work itself.
///
/// The loop is never destroyed: it ends with the process.
public final class EventLoop: SerialExecutor, TaskExecutor, @unchecked Sendable {
  // Unchecked because of `event` and `deferredDrain`: sd-event has no locks of its own. Both are touched in `init`, and
  // after that only on the loop's thread; what other threads may touch is `queue`, `wakeUp` and `thread`.

  /// The loop of this process.
  public static let shared = EventLoop()

  nonisolated(unsafe) package let event: OpaquePointer
  nonisolated(unsafe) private var deferredDrain: OpaquePointer?

  private struct Queue {
    var jobs = Deque<UnownedJob>()
    /// Whether somebody has seen to it that the queue will be drained.
    var drainIsDue = false
  }
  private let queue = Mutex(Queue())
  /// An eventfd that other threads write to, so that the loop notices what they enqueued.
  private let wakeUp: CInt
  /// The `pthread_t` of the thread inside `run()`; 0 before.
  private let thread = Atomic<UInt>(0)

  /// How many jobs run before descriptors and timers get their turn again.
  private static let jobsPerTurn = 1024

  private init() {
    var event: OpaquePointer?
    mustSucceed("sd_event_new", sd_event_new(&event))
    guard let event else { preconditionFailure("sd_event_new gave no loop") }
    self.event = event
    wakeUp = eventfd(0, CInt(EFD_CLOEXEC | EFD_NONBLOCK))
    precondition(wakeUp >= 0, "eventfd: errno \(errno)")
    mustSucceed(
      "sd_event_add_io",
      sd_event_add_io(
        event, nil, wakeUp, UInt32(EPOLLIN.rawValue),
        { _, descriptor, _, _ in
          var count: eventfd_t = 0
          eventfd_read(descriptor, &count)
          EventLoop.shared.runReadyJobs()
          return 0
        }, nil))
    mustSucceed(
      "sd_event_add_defer",
      sd_event_add_defer(
        event, &deferredDrain,
        { _, _ in
          EventLoop.shared.runReadyJobs()
          return 0
        }, nil))
    mustSucceed("sd_event_source_set_enabled", sd_event_source_set_enabled(deferredDrain, CInt(SD_EVENT_OFF)))
  }

  /// Runs the loop on the calling thread until ``exit(_:)``.
  ///
  /// - Returns: the status that was given to ``exit(_:)``.
  /// - Throws: what sd-event fails with, which it does only when the system is out of resources.
  public func run() throws(SystemdError) -> CInt {
    let (free, _) = thread.compareExchange(expected: 0, desired: UInt(pthread_self()), ordering: .sequentiallyConsistent)
    precondition(free, "the loop runs already")
    return try check("sd_event_loop", sd_event_loop(event))
  }

  /// Runs the loop on the calling thread as long as `condition` holds, which is looked at after each turn: for a program whose thread is
  /// another's between two pieces of work. Every call must be on the same thread.
  package func run(while condition: () -> Bool) throws(SystemdError) {
    let (free, owner) = thread.compareExchange(expected: 0, desired: UInt(pthread_self()), ordering: .sequentiallyConsistent)
    precondition(free || owner == UInt(pthread_self()), "the loop runs already")
    while condition() { try check("sd_event_run", sd_event_run(event, .max)) }
  }

  /// Makes ``run()`` return once the source being dispatched is done.
  @EventLoopActor public func exit(_ status: CInt) {
    mustSucceed("sd_event_exit", sd_event_exit(event, status))
  }

  /// Whether the caller is on the loop's thread.
  public var isCurrent: Bool { thread.load(ordering: .relaxed) == UInt(pthread_self()) }

  // MARK: executor

  public func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    let mustWake = queue.withLock { queue in
      queue.jobs.append(job)
      defer { queue.drainIsDue = true }
      return !queue.drainIsDue
    }
    guard mustWake else { return }
    if isCurrent {
      mustSucceed("sd_event_source_set_enabled", sd_event_source_set_enabled(deferredDrain, CInt(SD_EVENT_ONESHOT)))
    } else {
      eventfd_write(wakeUp, 1)
    }
  }

  public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

  public func checkIsolated() { precondition(isCurrent, "not on the event loop's thread") }

  public func isIsolatingCurrentContext() -> Bool? { isCurrent }

  /// Announces a call of ``runReadyJobs()`` on this thread: until then what is enqueued needs no turn of the loop of its own.
  package func willRunReadyJobs() { queue.withLock { $0.drainIsDue = true } }

  /// Runs what is enqueued, and what that enqueues, up to a budget. Event sources call it after their handler, so that a
  /// continuation resumed there runs without another turn of the loop.
  package func runReadyJobs() {
    var budget = Self.jobsPerTurn
    while budget > 0 {
      let next = queue.withLock { queue -> UnownedJob? in
        if let job = queue.jobs.popFirst() {
          // Jobs enqueued from here on are seen by this very loop.
          queue.drainIsDue = true
          return job
        }
        queue.drainIsDue = false
        return nil
      }
      guard let next else { return }
      next.runSynchronously(isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
      budget -= 1
    }
    mustSucceed("sd_event_source_set_enabled", sd_event_source_set_enabled(deferredDrain, CInt(SD_EVENT_ONESHOT)))
  }
}

/// Starts a task on the event loop, with the loop as its executor preference.
@discardableResult
public func startTask(_ body: @escaping @EventLoopActor @Sendable () async -> Void) -> Task<Void, Never> {
  Task(executorPreference: EventLoop.shared) { await body() }
}
