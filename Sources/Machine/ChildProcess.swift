import Glibc
import SystemPackage
public import SystemdEvent
import SystemdJSON

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
  /// Itself, if it may be no child of this process.
  private var process: ProcessDescriptor?
  /// Where what it prints can be read, if it can be.
  private var printed: OwnedDescriptor?
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
    self.process = nil
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
      try watchPrinted()
    } catch {
      // Nobody would ever end it.
      kill(process, SIGKILL)
      throw error
    }
  }

  /// Takes over a program that another run of the daemon has started, or somebody else.
  ///
  /// - Parameters:
  ///   - id: of its process, which may have ended meanwhile.
  ///   - printed: where to read what it prints on standard error; nil if that goes elsewhere.
  init(
    adopting id: CInt, _ process: consuming ProcessDescriptor, printed: consuming OwnedDescriptor?, onLine: @escaping (String) -> Void
  ) throws(SystemdError) {
    self.id = id
    self.onLine = onLine
    self.printed = consume printed
    let raw = process.raw
    self.process = consume process
    childSource = try EventSource.process(raw) { [weak self] status in self?.hasEnded(status) }
    try watchPrinted()
  }

  private func watchPrinted() throws(SystemdError) {
    guard let raw = printed?.raw else { return }
    printSource = try EventSource.descriptor(raw, .readable) { [weak self] _ in self?.readPrinted() }
  }

  /// What the next run of the daemon needs to take it over.
  ///
  /// - Returns: nil for one that has ended.
  func carried(_ handover: Handover) throws(SystemdError) -> JSONVariant? {
    guard status == nil else { return nil }
    let printed: JSONVariant? = if let raw = printed?.raw { try handover.add(raw) } else { nil }
    return .object(["pid": .integer(id), "process": try carriedProcess(handover), "printed": printed])
  }

  private func carriedProcess(_ handover: Handover) throws(SystemdError) -> JSONVariant {
    if let raw = process?.raw { return try handover.add(raw) }
    // A child's number is its own until it is reaped.
    let process = try ProcessDescriptor(of: id)
    defer { withExtendedLifetime(process) {} }
    return try handover.add(process.raw)
  }

  /// Goes on with one that ``carried(_:)`` told of.
  convenience init(carried: JSONVariant, _ handover: Handover, onLine: @escaping (String) -> Void) throws {
    guard let id = carried["pid"]?.integer.flatMap({ CInt(exactly: $0) }), let process = handover.take(carried["process"]) else {
      throw Handover.Failure("a process that cannot be told")
    }
    try self.init(adopting: id, ProcessDescriptor(owning: process), printed: handover.take(carried["printed"]), onLine: onLine)
  }

  // The sources go before the descriptors that they watch.
  isolated deinit {
    printSource.cancel()
    childSource.cancel()
  }

  /// Sends it a signal, unless it has ended.
  public func signal(_ signal: CInt) {
    guard status == nil else { return }
    if process != nil { process?.signal(signal) } else { kill(id, signal) }
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
    guard let raw = printed?.raw else { return false }
    var poller = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
    return poll(&poller, 1, 0) > 0
  }

  private func readPrinted() {
    guard let raw = printed?.raw else { return }
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(raw, &buffer, buffer.count)
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
