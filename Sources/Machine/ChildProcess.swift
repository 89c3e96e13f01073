import Glibc
import SystemPackage
public import SystemdEvent

/// A QEMU that this process started, or a program that serves one of its devices.
///
/// It is watched by pidfd and reaped. Letting go of this object leaves it running: ending it is a decision
/// (``Machine/stop(_:hurry:)``).
@EventLoopActor
public final class ChildProcess {
  /// The number of the first descriptor that it inherits, behind standard input, output and error.
  nonisolated static let firstDescriptor: CInt = 3

  public let id: CInt
  /// Fulfilled when it has ended and all that it printed has been seen.
  public let ended = Promise<ExitStatus>()
  /// The last lines that it printed on its standard error, oldest first.
  public private(set) var lastWords: [String] = []

  private static let keptLines = 20
  private static let longestLine = 4096
  private let printed: OwnedDescriptor
  private let onLine: (String) -> Void
  private var printSource: EventSource?
  private var childSource: EventSource?
  private var line: [UInt8] = []
  private var status: ExitStatus?

  /// Starts a program.
  ///
  /// - Parameters:
  ///   - program: looked up on PATH if it is a bare name.
  ///   - descriptors: become its descriptors from ``firstDescriptor`` on. They stay the caller's; no other one is inherited.
  ///   - usesTerminal: it reads the terminal, so it must stay in its foreground process group. Otherwise it gets a group of
  ///     its own, that the terminal's Ctrl-C may reach this process alone, which ends it in order.
  ///   - onLine: called with each line that it prints on standard error.
  init(
    _ program: String, _ arguments: [String], descriptors: [CInt], usesTerminal: Bool = false, onLine: @escaping (String) -> Void
  ) throws(SystemdError) {
    // Out of the way of the numbers that they are to have: to give one its number must not close another.
    let firstFree = Self.firstDescriptor + CInt(descriptors.count)
    var copies: [CInt] = []
    defer { for copy in copies { close(copy) } }
    for descriptor in descriptors {
      let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, firstFree)
      guard copy >= 0 else { throw .last("dup") }
      copies.append(copy)
    }
    var pipes: [CInt] = [-1, -1]
    guard pipe(&pipes) == 0 else { throw .last("pipe") }
    printed = OwnedDescriptor(owning: pipes[0])
    let standardError = OwnedDescriptor(owning: pipes[1])
    for end in pipes { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    self.onLine = onLine

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    if !usesTerminal { posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) }
    posix_spawn_file_actions_adddup2(&actions, standardError.raw, 2)
    for (number, copy) in copies.enumerated() {
      posix_spawn_file_actions_adddup2(&actions, copy, Self.firstDescriptor + CInt(number))
    }
    posix_spawn_file_actions_addclosefrom_np(&actions, firstFree)

    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    var all = sigset_t()
    sigemptyset(&none)
    sigfillset(&all)
    // It may outlive this process, which reads what it prints: to print must not end it then.
    sigdelset(&all, SIGPIPE)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    var flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
    if !usesTerminal { flags |= POSIX_SPAWN_SETPGROUP }
    posix_spawnattr_setflags(&attributes, Int16(flags))

    let words = ([program] + arguments).map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    var process: pid_t = 0
    let result = posix_spawnp(&process, program, &actions, &attributes, words, environ)
    guard result == 0 else { throw SystemdError("cannot start \(program)", Errno(rawValue: result)) }
    id = process

    do {
      childSource = try EventSource.child(process) { [weak self] status in self?.hasEnded(status) }
      printSource = try EventSource.descriptor(printed.raw, .readable) { [weak self] _ in self?.readPrinted() }
    } catch {
      // Nobody would ever end it.
      kill(process, SIGKILL)
      throw error
    }
  }

  // The source goes before the descriptor that it watches.
  isolated deinit { printSource.cancel() }

  /// Sends it a signal, unless it has ended.
  public func signal(_ signal: CInt) {
    if status == nil { kill(id, signal) }
  }

  private func hasEnded(_ status: ExitStatus) {
    self.status = status
    childSource = nil
    // What it printed before is in the pipe. A child of its own may keep the pipe open, so its end is not waited for.
    while printSource != nil, canRead { readPrinted() }
    printSource = nil
    finishLine()
    ended.fulfil(status)
  }

  private var canRead: Bool {
    var poller = pollfd(fd: printed.raw, events: Int16(POLLIN), revents: 0)
    return poll(&poller, 1, 0) > 0
  }

  private func readPrinted() {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(printed.raw, &buffer, buffer.count)
    guard count > 0 else {
      if count == 0 { printSource = nil }
      return
    }
    for byte in buffer[..<count] {
      if byte == UInt8(ascii: "\n") || line.count == Self.longestLine { finishLine() }
      if byte != UInt8(ascii: "\n") { line.append(byte) }
    }
  }

  private func finishLine() {
    guard !line.isEmpty else { return }
    let text = String(decoding: line, as: UTF8.self)
    line.removeAll(keepingCapacity: true)
    lastWords.append(text)
    if lastWords.count > Self.keptLines { lastWords.removeFirst() }
    onLine(text)
  }
}
