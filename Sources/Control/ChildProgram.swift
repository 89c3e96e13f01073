import Glibc
import SystemPackage
public import SystemdEvent

/// A program that this one started, in its own process group: the terminal and its Ctrl-C are for both.
@EventLoopActor
public final class ChildProgram {
  public let id: CInt
  /// Fulfilled when it has ended.
  public let ended = Promise<ExitStatus>()
  private var source: EventSource?
  /// Those that have not ended, as far as is known.
  private static var running: Set<CInt> = []

  /// Starts a program, with signals as a program has them at its start, and no descriptors but the standard ones.
  ///
  /// - Parameters:
  ///   - program: looked up on PATH if it is a bare name.
  ///   - standard: become its standard input, output and error; nil for this program's own. They stay the caller's.
  /// - Throws: `SystemdError`, `ENOENT` if there is no such program. SIGCHLD must be blocked.
  public init(
    _ program: String, _ arguments: [String], standard: (input: CInt?, output: CInt?, error: CInt?) = (nil, nil, nil)
  ) throws(SystemdError) {
    // Out of the way of the numbers that they are to have.
    var copies: [(copy: CInt, number: CInt)] = []
    defer { for (copy, _) in copies { close(copy) } }
    for (number, descriptor) in [standard.input, standard.output, standard.error].enumerated() {
      guard let descriptor else { continue }
      let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
      guard copy >= 0 else { throw .last("dup") }
      copies.append((copy, CInt(number)))
    }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for (copy, number) in copies { posix_spawn_file_actions_adddup2(&actions, copy, number) }
    posix_spawn_file_actions_addclosefrom_np(&actions, 3)

    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    var all = sigset_t()
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

    let words = ([program] + arguments).map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    var process: pid_t = 0
    let result = posix_spawnp(&process, program, &actions, &attributes, words, environ)
    guard result == 0 else { throw SystemdError("cannot start \(program)", .init(rawValue: result)) }
    id = process
    do {
      source = try .child(process) { [weak self] status in
        Self.running.remove(process)
        self?.source = nil
        self?.ended.fulfil(status)
      }
    } catch {
      kill(process, SIGKILL)
      throw error
    }
    Self.running.insert(process)
  }

  /// Asks all that have not ended to end: this program is about to.
  public static func endAll() {
    for process in running { kill(process, SIGTERM) }
  }

  /// Sends it a signal, unless it has ended.
  public func signal(_ signal: CInt) {
    if ended.result == nil { kill(id, signal) }
  }
}
