import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite(.onEventLoop) struct ListeningSocketTests {
  @EventLoopActor
  private static func next(_ listener: ListeningSocket) async throws -> Peer {
    guard let connection = await listener.accept() else { throw NeverCame(description: "a connection") }
    return try Peer(connection)
  }

  @Test("connections are taken one by one, when they are asked for") @EventLoopActor
  func oneByOne() async throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("socket")
    let listener = try ListeningSocket(at: path)
    let clients = try (0..<3).map { _ in try Peer(.connected(to: path)) }
    for (index, client) in clients.enumerated() {
      let server = try await Self.next(listener)
      try await client.write("\(index)")
      try await server.wait(for: "\(index)")
    }
  }

  @Test("the socket is this user's alone, and goes with the listener; one that waits learns of it") @EventLoopActor
  func close() async throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("socket")
    let listener = try ListeningSocket(at: path)
    var status = stat()
    #expect(stat(path.string, &status) == 0 && status.st_mode & 0o777 == 0o600)
    let ended = Promise<Bool>()
    startTask { ended.fulfil(await listener.accept() == nil) }
    try await quiet()
    listener.close()
    #expect(try await ended.soon())
    #expect(access(path.string, F_OK) != 0)
    #expect(await listener.accept() == nil)
  }

  @Test("what somebody has put in its place stays") @EventLoopActor
  func replaced() throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("socket")
    let listener = try ListeningSocket(at: path)
    unlink(path.string)
    try folder.file("socket", Array("mine".utf8))
    listener.close()
    #expect(access(path.string, F_OK) == 0)
  }

  @Test("a socket that nobody has any more is replaced; one that is alive, and a file, are not") @EventLoopActor
  func taken() async throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("socket")
    let alive = try ListeningSocket(at: path)
    #expect(throws: SystemdError("bind", .addressInUse)) { _ = try ListeningSocket(at: path) }
    // It was not taken for a client.
    let client = try Peer(.connected(to: path))
    let server = try await Self.next(alive)
    try await client.write("first")
    try await server.wait(for: "first")

    let stale = folder.path.appending("stale")
    let raw = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(stale.string.utf8)) }
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    try #require(bound == 0)
    Glibc.close(raw)
    let listener = try ListeningSocket(at: stale)
    _ = try OwnedDescriptor.connected(to: stale)

    try folder.file("file", [])
    #expect(throws: SystemdError("bind", .addressInUse)) { _ = try ListeningSocket(at: folder.path.appending("file")) }
    withExtendedLifetime(listener) {}
  }
}
