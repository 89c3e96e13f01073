import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// Those whom the daemon tells things, who do not listen.
@Suite("nobody reads the log, or what the service manager is told", .onEventLoop, .serialized) struct LogFaultTests {
  @Test("standard error is a pipe that is full: calls are answered, and how much was lost is told when it is read") @EventLoopActor
  func unreadLog() async throws {
    try await withTemporaryDirectory { folder in
      let fifo = folder.appending("log")
      try #require(mkfifo(fifo.string, 0o600) == 0)
      let log = OwnedDescriptor(owning: open(fifo.string, O_RDWR | O_NONBLOCK | O_CLOEXEC))
      try fill(log.raw)
      let launcher = ["sh", "-c", #"exec "$0" "$@" 2>"# + fifo.string]
      let (_, status) = try await withDaemon(bareMachine, launcher: launcher) { daemon in
        let reply = try await known { try await daemon.call("io.systemd.MachineInstance.Describe") }
        #expect(reply.contains("running"))
        _ = try await daemon.qmp(#"{"execute":"query-name"}"#)
        let reader = try Peer(log.duplicate())
        while !reader.text.contains("messages were lost, since nobody read the log") {
          _ = try await daemon.qmp(#"{"execute":"query-name"}"#)
        }
        // What is said from then on is there.
        try await reader.wait(for: "session closed")
      }
      #expect(status == 0)
    }
  }

  /// Writes until nothing more goes in.
  private func fill(_ pipe: CInt) throws {
    for size in [65536, 4096, 1] {
      let bytes = [UInt8](repeating: UInt8(ascii: "x"), count: size)
      while write(pipe, bytes, size) > 0 {}
    }
    guard errno == EAGAIN else { throw SystemdError.last("write") }
  }

  private static let launcher = """
    mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind "$JOURNAL" /run/systemd/journal || exit
    JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$0" "$@"
    """
  /// Begins a command that runs where the journal is a folder of the test's.
  private static func launcher(journal: FilePath) -> [String] { ["env", "JOURNAL=\(journal)", "unshare", "--mount", "sh", "-c", launcher] }

  @Test("the journal does not read: calls are answered, and how much was lost is told when it does") @EventLoopActor
  func unreadJournal() async throws {
    try await withTemporaryDirectory { folder in
      let journal = try FullSocket(at: folder.appending("socket"))
      let (_, status) = try await withDaemon(bareMachine, launcher: Self.launcher(journal: folder)) { daemon in
        let reply = try await known { try await daemon.call("io.systemd.MachineInstance.Describe") }
        #expect(reply.contains("running"))
        for _ in 0..<5 { _ = try await daemon.qmp(#"{"execute":"query-name"}"#) }
        journal.drain()
        while !journal.messages.contains(where: { $0.contains("messages were lost, since nobody read the log") }) {
          _ = try await daemon.qmp(#"{"execute":"query-name"}"#)
          journal.drain()
        }
      }
      #expect(status == 0)
    }
  }

  @Test("the journal has gone: nobody notices") @EventLoopActor
  func journalGone() async throws {
    try await withTemporaryDirectory { folder in
      let (_, status) = try await withDaemon(bareMachine, launcher: Self.launcher(journal: folder)) { daemon in
        let reply = try await known { try await daemon.call("io.systemd.MachineInstance.Describe") }
        #expect(reply.contains("running"))
      }
      #expect(status == 0)
    }
  }

  @Test("the service manager does not read: calls are answered, and it learns of READY when it does") @EventLoopActor
  func unreadNotification() async throws {
    try await withTemporaryDirectory { folder in
      let manager = try FullSocket(at: folder.appending("notify"))
      try await Self.withoutManager(folder, notify: manager.path) {
        manager.drain()
        while !manager.messages.contains(where: { $0.hasPrefix("READY=1\n") }) {
          try await quiet()
          manager.drain()
        }
      }
    }
  }

  @Test("the service manager's socket has gone: nobody notices") @EventLoopActor
  func notificationGone() async throws {
    try await withTemporaryDirectory { folder in
      try await Self.withoutManager(folder, notify: folder.appending("nobody")) {}
    }
  }

  /// Runs a daemon whose service manager is no help in knowing when it is ready, calls it, and ends it.
  @EventLoopActor
  private static func withoutManager(
    _ folder: FilePath, notify: FilePath, function: String = #function, _ body: @EventLoopActor () async throws -> Void
  ) async throws {
    let ended = Promise<CommandResult?>()
    let arguments =
      ["300", "env", "NOTIFY_SOCKET=\(notify)", productsDirectory.appending("qmp-varlinkd").string] + bareMachine[..<7]
      + ["--register=no", "--runtime-directory", folder.string] + bareMachine[7...]
    startTask { ended.fulfil(try? await command("timeout", arguments)) }
    let socket = folder.appending("control")
    while access(socket.string, F_OK) != 0, ended.result == nil { try await quiet() }
    let caller = VarlinkPeer(try Peer(.connected(to: socket)))
    let reply = try await known(function: function) { try await caller.call("io.systemd.MachineInstance.Describe") }
    #expect(reply.contains("running"))
    try await body()
    #expect(try await caller.call("io.systemd.MachineInstance.Terminate") == "{}")
    let result = try #require(try await ended.soon("the daemon's end"))
    #expect(result.status == 0, "\(result.error)")
  }
}

/// A datagram socket that has no room, until it is read from.
@EventLoopActor
private final class FullSocket {
  let path: FilePath
  /// What was there beside that which filled it.
  private(set) var messages: [String] = []
  private let descriptor: OwnedDescriptor
  private static let filling = "x"

  init(at path: FilePath) throws {
    self.path = path
    descriptor = try Self.socket { raw, address, length in bind(raw, address, length) }(path)
    chmod(path.string, 0o666)
    // Of one sender it takes less than of all.
    var isFull = false
    while !isFull {
      let sender = try Self.socket { raw, address, length in connect(raw, address, length) }(path)
      var sent = 0
      while send(sender.raw, Self.filling, 1, CInt(MSG_DONTWAIT)) == 1 { sent += 1 }
      isFull = sent == 0
    }
  }

  /// Takes out all that is there.
  func drain() {
    var buffer = [UInt8](repeating: 0, count: 65536)
    while case let count = recv(descriptor.raw, &buffer, buffer.count, CInt(MSG_DONTWAIT)), count > 0 {
      let message = String(decoding: buffer[..<count], as: UTF8.self)
      if message != Self.filling { messages.append(message) }
    }
  }

  private static func socket(
    _ call: @escaping (CInt, UnsafePointer<sockaddr>, socklen_t) -> CInt
  ) -> (FilePath) throws -> OwnedDescriptor {
    { path in
      let raw = Glibc.socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      guard raw >= 0 else { throw SystemdError.last("socket") }
      let descriptor = OwnedDescriptor(owning: raw)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.string.utf8)) }
      let result = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { call(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
      }
      guard result == 0 else { throw SystemdError.last("\(path)") }
      return descriptor
    }
  }
}
