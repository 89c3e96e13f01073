import Glibc
import Subprocess
public import SystemPackage
public import SystemdEvent

/// A `qmp-varlinkd` that runs for one test, with its socket in a folder of its own.
@EventLoopActor
public final class RunningDaemon {
  public let directory: FilePath
  public let process: Int32
  private let logFile: FilePath
  private let readiness: NotifySocket

  public var socket: FilePath { directory.appending("control") }
  /// The socket, as varlinkctl wants it.
  public var address: String { "unix:\(socket)" }
  /// What the daemon said on standard error.
  public var log: String { contents(of: logFile) }
  /// What the daemon told its service manager, oldest first.
  public var notified: [String] { readiness.messages }
  /// Its children: QEMU, if it started one.
  public var children: [Int32] {
    contents(of: FilePath("/proc/\(process)/task/\(process)/children")).split(separator: " ").compactMap { Int32($0.trimmingPrefix("\n")) }
  }
  /// The QEMU that it started.
  public func qemu() throws -> Int32 {
    guard let child = children.first else { throw Failure("the daemon has no child; its log:\n\(log)") }
    return child
  }

  public struct Failure: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
  }

  init(directory: FilePath, process: Int32, logFile: FilePath, readiness: NotifySocket) {
    self.directory = directory
    self.process = process
    self.logFile = logFile
    self.readiness = readiness
  }

  /// A new connection to the control socket.
  public func connect() throws -> VarlinkPeer {
    VarlinkPeer(try Peer(.connected(to: socket)))
  }

  /// One call on a connection of its own.
  public func call(_ method: String, _ parameters: String = "{}") async throws -> String {
    try await connect().call(method, parameters)
  }

  /// A connection that has been upgraded to QMP; nothing has been read of that yet.
  public func acquireQMP() async throws -> Peer {
    let connection = try connect()
    let reply = try await connection.call("io.systemd.QemuMachineInstance.AcquireQMP", flags: #","upgrade":true"#)
    guard !reply.contains("\"error\"") else { throw Failure(reply) }
    return connection.peer
  }

  /// One QMP command on a session of its own: the line with the reply.
  public func qmp(_ command: String) async throws -> String {
    let session = try await acquireQMP()
    try await session.write(#"{"execute":"qmp_capabilities"}"# + command)
    session.endWriting()
    try await session.waitForEnd()
    let lines = session.text.split(whereSeparator: \.isNewline).filter { !$0.hasPrefix(#"{"timestamp""#) }
    guard lines.count >= 3 else { throw Failure("no reply: \(session.text)") }
    return String(lines[2])
  }

  public func signal(_ signal: CInt) { kill(process, signal) }

  /// How many descriptors a process has.
  public static func descriptorCount(of process: Int32) -> Int {
    guard let folder = opendir("/proc/\(process)/fd") else { return -1 }
    defer { closedir(folder) }
    var count = 0
    while readdir(folder) != nil { count += 1 }
    return count
  }

  /// How many descriptors the daemon and its QEMU have once nothing changes any more. A descriptor is closed a moment after its
  /// client was told, so this looks after each of many calls, until it has seen the same often enough.
  public func settledDescriptorCounts() async throws -> [Int] {
    let qemu = try qemu()
    let connection = try connect()
    var counts: [Int] = []
    var same = 0
    while same < 200 {
      _ = try await connection.call("io.systemd.MachineInstance.Describe")
      let now = [Self.descriptorCount(of: process), Self.descriptorCount(of: qemu)]
      same = now == counts ? same + 1 : 0
      counts = now
    }
    return counts
  }

  /// A field of /proc/PID/status that is a number.
  public static func status(of process: Int32, _ field: String) -> Int {
    let line = contents(of: FilePath("/proc/\(process)/status")).split(separator: "\n").first { $0.hasPrefix("\(field):") }
    return line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? -1
  }
}

/// Runs a daemon with `arguments` (the runtime directory is added), and `body` once it said READY=1 and what becomes of the
/// interface that it adds after that. Then the daemon is asked to stop, twice, if it has not ended. Unless `arguments` say otherwise,
/// the machine is not registered with the host's systemd-machined, and the host's polkit is not asked.
///
/// - Parameter launcher: a command that becomes the one behind it; empty for none.
/// - Returns: what `body` returned, and the daemon's exit status.
@EventLoopActor
public func withDaemon<Result: Sendable>(
  _ arguments: [String], directory: FilePath? = nil, launcher: [String] = [],
  _ body: @escaping @EventLoopActor (RunningDaemon) async throws -> Result
) async throws -> (result: Result, status: Int32) {
  try await withTemporaryDirectory { temporary in
    let directory = directory ?? temporary
    let separator = arguments.firstIndex(of: "--") ?? arguments.endIndex
    var own = ["--runtime-directory", directory.string]
    for option in ["--register", "--polkit"] where !arguments[..<separator].contains(where: { $0.hasPrefix(option) }) {
      own.append("\(option)=no")
    }
    let command = launcher + [productsDirectory.appending("qmp-varlinkd").string] + arguments[..<separator] + own + arguments[separator...]
    return try await withReadyProcess(command, temporary, settles: true) { process, logFile, readiness in
      try await body(RunningDaemon(directory: directory, process: process, logFile: logFile, readiness: readiness))
    }
  }
}

/// Runs one of our programs, and `body` with its process id once it said READY=1. Then it is asked to stop.
@EventLoopActor
public func withReadyProcess<Result: Sendable>(
  _ program: String, _ arguments: [String], _ body: @escaping @EventLoopActor (Int32) async throws -> Result
) async throws -> Result {
  try await withTemporaryDirectory { temporary in
    try await withReadyProcess([productsDirectory.appending(program).string] + arguments, temporary) { process, _, _ in
      try await body(process)
    }.result
  }
}

/// Runs a command, and `body` once it said READY=1. Then it is asked to stop.
@EventLoopActor
public func withReadyCommand<Result: Sendable>(_ command: [String], _ body: @escaping @EventLoopActor () async throws -> Result)
  async throws
  -> Result
{
  try await withTemporaryDirectory { temporary in
    try await withReadyProcess(command, temporary) { _, _, _ in try await body() }.result
  }
}

/// Runs a command, and `body` with its process id, its log and what it says to its service manager, once that is READY=1.
@EventLoopActor
func withReadyProcess<Result: Sendable>(
  _ command: [String], _ temporary: FilePath, settles: Bool = false,
  _ body: @escaping @EventLoopActor (Int32, FilePath, NotifySocket) async throws -> Result
) async throws -> (result: Result, status: Int32) {
  let readiness = try NotifySocket(at: temporary.appending("notify"))
  let logFile = temporary.appending("log")
  let log = try FileDescriptor.open(logFile, .writeOnly, options: [.create, .append], permissions: [.ownerReadWrite])
  defer { try? log.close() }
  let outcome = try await run(
    command[0].contains("/") ? .path(FilePath(command[0])) : .name(command[0]), arguments: Arguments(Array(command.dropFirst())),
    environment: .inherit.updating(["NOTIFY_SOCKET": readiness.path.string]), input: .none,
    output: .fileDescriptor(log, closeAfterSpawningProcess: false), error: .fileDescriptor(log, closeAfterSpawningProcess: false)
  ) { execution in
    let process = execution.processIdentifier.value
    let result = await finish(readiness, logFile, settles: settles) { try await body(process, logFile, readiness) }
    // The second signal says not to wait for the guest.
    kill(process, SIGTERM)
    kill(process, SIGINT)
    return result
  }
  return (try outcome.closureResult.get(), outcome.terminationStatus.shellStatus)
}

@EventLoopActor
private func finish<Result: Sendable>(
  _ readiness: NotifySocket, _ logFile: FilePath, settles: Bool, _ body: @EventLoopActor () async throws -> Result
) async -> Swift.Result<Result, any Error> {
  do {
    guard await readiness.ready.value(within: patience) != nil else {
      throw RunningDaemon.Failure("the program did not get ready; its log:\n\(contents(of: logFile))")
    }
    if settles, await readiness.settled.value(within: patience) == nil {
      throw RunningDaemon.Failure("the daemon did not settle; its log:\n\(contents(of: logFile))")
    }
    return .success(try await body())
  } catch {
    print("the log:\n\(contents(of: logFile))")
    return .failure(error)
  }
}

/// The far end of sd_notify.
@EventLoopActor
public final class NotifySocket {
  public let path: FilePath
  /// READY=1 has come.
  let ready = Promise<Void>()
  /// The daemon has done what it does beside its service at first.
  let settled = Promise<Void>()
  /// All that came, oldest first.
  public private(set) var messages: [String] = []
  private let descriptor: OwnedDescriptor
  private var source: EventSource?

  // The source goes before the descriptor that it watches, of which a child that is just being made may have a copy.
  isolated deinit { source.cancel() }

  public init(at path: FilePath) throws {
    self.path = path
    let raw = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard raw >= 0 else { throw SystemdError.last("socket") }
    descriptor = OwnedDescriptor(owning: raw)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.string.utf8)) }
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    guard bound == 0, chmod(path.string, 0o666) == 0 else { throw SystemdError.last("bind") }
    source = try EventSource.descriptor(raw, .readable) { [weak self] _ in
      var buffer = [UInt8](repeating: 0, count: 4096)
      let count = recv(raw, &buffer, buffer.count, CInt(MSG_DONTWAIT))
      guard count > 0 else { return }
      let message = String(decoding: buffer[..<count], as: UTF8.self)
      self?.messages.append(message)
      if message.split(separator: "\n").contains("READY=1") { self?.ready.fulfil() }
      if message.contains("io.qmpvarlink.QMP") || message.contains("STOPPING=1") { self?.settled.fulfil() }
    }
  }
}

/// A Varlink connection without any library.
@EventLoopActor
public final class VarlinkPeer {
  public let peer: Peer
  /// How much of what came has been given out.
  private var consumed = 0

  public init(_ peer: Peer) { self.peer = peer }

  /// Sends a call, with descriptors that stay the caller's.
  public func send(_ method: String, _ parameters: String = "{}", flags: String = "", descriptors: [CInt] = []) async throws {
    try await peer.write(Array(#"{"method":"\#(method)","parameters":\#(parameters)\#(flags)}"#.utf8) + [0], descriptors: descriptors)
  }

  /// The next message.
  public func receive() async throws -> String {
    let from = consumed
    try await peer.wait("a Varlink message") { $0.received[from...].contains(0) || $0.hasEnded }
    guard let end = peer.received[from...].firstIndex(of: 0) else {
      throw RunningDaemon.Failure("the connection ended before a message: '\(String(decoding: peer.received[from...], as: UTF8.self))'")
    }
    consumed = end + 1
    return String(decoding: peer.received[from..<end], as: UTF8.self)
  }

  /// Sends a call and waits for its reply.
  public func call(
    _ method: String, _ parameters: String = "{}", flags: String = "", descriptors: [CInt] = []
  ) async throws -> String {
    try await send(method, parameters, flags: flags, descriptors: descriptors)
    return try await receive()
  }
}
