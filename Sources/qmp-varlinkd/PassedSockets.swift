import Glibc
import SystemPackage
import SystemdEvent
import Varlink

/// The sockets that this process was started with, instead of one that it makes.
///
/// A service manager passes a listening socket, varlinkctl's `exec:` a connected one (both as sd_listen_fds(3) has it), and with
/// `$SYSTEMD_VARLINK_LISTEN` being `-`, as `ssh-exec:` sets it, the client is at standard input and output. The descriptors belong to
/// this value's holder, which hands each to a ``VarlinkServer`` once.
struct PassedSockets: Sendable {
  private var listening: [CInt] = []
  private var connected: [CInt] = []
  private var standardStreams: (input: CInt, output: CInt)?
  /// Where the first that listens is in the file system.
  let path: FilePath?

  /// Why they cannot be served.
  struct Failure: Error, CustomStringConvertible { let description: String }

  /// Whether nothing was passed.
  var isEmpty: Bool { listening.isEmpty && hasNoConnections }
  /// Whether there are clients, and nothing at which further ones could come.
  var areConnectionsOnly: Bool { listening.isEmpty && !hasNoConnections }
  private var hasNoConnections: Bool { connected.isEmpty && standardStreams == nil }

  /// Takes what the environment tells of, and removes that from it, for it is not meant for QEMU. To be called before anything else is
  /// opened.
  ///
  /// - Returns: also what the run of the daemon before has left, if it has.
  static func take() throws(Failure) -> (sockets: PassedSockets, inheritance: Succession.Inheritance?) {
    let descriptors: [(descriptor: CInt, name: String)]
    do throws(SystemdError) { descriptors = try ServiceManager.takeDescriptors() } catch {
      throw Failure(description: "LISTEN_FDS: \(error)")
    }
    let inheritance = Succession.take(descriptors)
    var listening: [CInt] = []
    var connected: [CInt] = []
    for (descriptor, name) in descriptors where !Succession.isOfHandover(name) {
      if ServiceManager.isStreamSocket(descriptor, listening: true) {
        listening.append(descriptor)
      } else if ServiceManager.isStreamSocket(descriptor, listening: false) {
        connected.append(descriptor)
      } else {
        throw Failure(description: "LISTEN_FDS: descriptor \(descriptor) is no UNIX stream socket")
      }
    }
    return (PassedSockets(listening: listening, connected: connected, standardStreams: try takeStandardStreams()), inheritance)
  }

  /// Sockets that were passed to the run of the daemon before.
  init(listening: [CInt]) { self.init(listening: listening, connected: [], standardStreams: nil) }

  private init(listening: [CInt], connected: [CInt], standardStreams: (CInt, CInt)?) {
    self.listening = listening
    self.connected = connected
    self.standardStreams = standardStreams
    path = listening.first.flatMap(socketPath)
  }

  /// Moves the client out of the way of what this process and QEMU read and print.
  private static func takeStandardStreams() throws(Failure) -> (CInt, CInt)? {
    let variable = "SYSTEMD_VARLINK_LISTEN"
    guard let value = getenv(variable).map({ String(cString: $0) }) else { return nil }
    guard value == "-" else {
      throw Failure(description: "\(variable) is '\(value)': only '-' is supported, which is standard input and output")
    }
    unsetenv(variable)
    guard let first = FileKind(of: STDIN_FILENO), let second = FileKind(of: STDOUT_FILENO) else {
      throw Failure(description: "\(variable) is '-', but standard input and output are not two pipes or a socket")
    }
    let input = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
    // One number for one socket: so it can pass descriptors.
    let output = first == second ? input : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
    let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
    guard input >= 0, output >= 0, null >= 0, dup2(null, STDIN_FILENO) >= 0, dup2(STDERR_FILENO, STDOUT_FILENO) >= 0 else {
      throw Failure(description: "\(SystemdError.last("cannot take over standard input and output"))")
    }
    close(null)
    return (input, output)
  }

  /// Has `server` listen on those that listen.
  @EventLoopActor
  func listen(_ server: VarlinkServer) throws(SystemdError) {
    for descriptor in listening { try server.listen(on: OwnedDescriptor(owning: descriptor)) }
  }

  /// Has `server`, which serves by now, serve those that are connected.
  ///
  /// - Parameter ended: called when all of them have ended or were upgraded.
  @EventLoopActor
  func serve(_ server: VarlinkServer, ended: @escaping () -> Void) throws(SystemdError) {
    var left = connected.count + (standardStreams == nil ? 0 : 1)
    let oneEnded = {
      left -= 1
      if left == 0 { ended() }
    }
    for descriptor in connected { try server.serve(OwnedDescriptor(owning: descriptor), ended: oneEnded) }
    guard let (input, output) = standardStreams else { return }
    if input == output { return try server.serve(OwnedDescriptor(owning: input), ended: oneEnded) }
    // Who started this process is who is at its pipes, and what it may do is what this process's user may.
    try server.serve(
      input: OwnedDescriptor(owning: input), output: OwnedDescriptor(owning: output),
      peer: (process: getppid(), user: getuid(), group: getgid()), ended: oneEnded)
  }
}

/// The path that a UNIX socket is bound to, if it has one.
private func socketPath(_ descriptor: CInt) -> FilePath? {
  var address = sockaddr_un()
  var length = socklen_t(MemoryLayout<sockaddr_un>.size)
  let result = withUnsafeMutablePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
  }
  guard result == 0 else { return nil }
  let bytes = withUnsafeBytes(of: address.sun_path) { path in path.prefix { $0 != 0 } }
  return bytes.isEmpty ? nil : FilePath(String(decoding: bytes, as: UTF8.self))
}

/// Which socket or pipe a descriptor is of; there is none for other files, which cannot be waited for.
private struct FileKind: Equatable {
  private let device: UInt
  private let node: UInt

  init?(of descriptor: CInt) {
    var status = stat()
    guard fstat(descriptor, &status) == 0, [S_IFSOCK, S_IFIFO].contains(status.st_mode & S_IFMT) else { return nil }
    device = UInt(status.st_dev)
    node = UInt(status.st_ino)
  }
}
