import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Varlink

/// A server with one interface whose handlers are simple, on a socket of its own.
@EventLoopActor
final class TestService {
  nonisolated static let text = """
    interface test.service

    method Echo(text: string) -> (text: string)

    method Fail(kind: string) -> ()

    # Replies when the test says so
    method Wait() -> (count: int)

    method Count(to: int) -> (number: int)

    method Raw() -> (hello: ?string)

    # Reads what is there at a passed descriptor, after the next call has come
    method Read(fileDescriptorIndex: int) -> (text: string)

    error Sorry (why: string)
    """
  nonisolated static let kinds: [String: VarlinkInterface.MethodKind] = ["Count": .more, "Raw": .upgrade]

  struct Odd: Error {}

  let server: VarlinkServer
  let folder: TemporaryFolder
  var socket: FilePath { folder.path.appending("socket") }

  /// The calls of `Wait` that came, and what lets them go.
  private(set) var waiting: [VarlinkCall] = []
  let release = Promise<Int>()
  /// How many callers went while `Wait` was pending.
  private(set) var gone = 0
  /// What `Raw` waits for before it upgrades.
  var mayUpgrade: Promise<Void>?
  /// What `Read` waits for.
  var mayRead: Promise<Void>?
  /// What `upgrade(_:)` gave: whether there was a connection.
  private(set) var upgrades: [Bool] = []
  private(set) var rawPeers: [Peer] = []
  private(set) var rawCalls = 0
  private var changes: [() -> Void] = []

  init(limits: VarlinkServer.Limits = VarlinkServer.Limits()) throws {
    folder = try TemporaryFolder()
    let info = VarlinkServer.Info(vendor: "a vendor", product: "a product", version: "1.2", url: "https://example.org")
    server = try VarlinkServer(info, limits: limits) { error in
      let what = (error as? SystemdError)?.errno.description ?? "\(type(of: error))"
      return VarlinkError("test.service.Sorry", .object(["why": .string("mapped \(what)")]))
    }
    try server.add(VarlinkInterface(parsing: Self.text, kinds: Self.kinds))
    try server.bind("test.service.Echo") { $0.parameters }
    try server.bind("test.service.Fail") { call in
      switch call.parameters["kind"]?.string {
      case "varlink": throw VarlinkError("test.service.Sorry", .object(["why": .string("thrown")]))
      case "parameter": throw VarlinkError.invalidParameter("kind")
      case "hang-up":
        call.hangUp()
        return nil
      default: throw Odd()
      }
    }
    try server.bind("test.service.Wait") { [weak self] call in
      guard let self else { return nil }
      call.whenCallerGoes {
        self.gone += 1
        self.changed()
      }
      waiting.append(call)
      changed()
      return .object(["count": .integer(await release.value)])
    }
    try server.bind("test.service.Read") { [weak self] call in
      if let gate = self?.mayRead { await gate.value }
      let descriptor = try call.takeDescriptor("fileDescriptorIndex")
      var buffer = [UInt8](repeating: 0, count: 64)
      let count = read(descriptor.raw, &buffer, buffer.count)
      return .object(["text": .string(String(decoding: buffer[..<max(0, count)], as: UTF8.self))])
    }
    try server.bind("test.service.Count", .more) { call in
      let last = call.parameters["to"]?.integer ?? 0
      for number in 1..<last { try call.notify(.object(["number": .integer(number)])) }
      return .object(["number": .integer(last)])
    }
    try server.bind("test.service.Raw", .upgrade) { [weak self] call in
      guard let self else { return nil }
      rawCalls += 1
      changed()
      await mayUpgrade?.value
      let upgraded = try await call.upgrade(.object(["hello": .string("raw")]))?.take()
      upgrades.append(upgraded != nil)
      if let upgraded {
        close(upgraded.output)
        rawPeers.append(try Peer(OwnedDescriptor(owning: upgraded.input)))
      }
      changed()
      return nil
    }
    try server.listen(on: socket, mode: 0o600)
    try server.serve()
  }

  /// Connects to the service, as a peer that speaks for itself.
  func connect() throws -> TestSupport.VarlinkPeer {
    TestSupport.VarlinkPeer(try Peer(OwnedDescriptor.connected(to: socket)))
  }

  /// Waits until the handlers have come so far.
  func wait(_ what: String, until condition: @escaping (TestService) -> Bool) async throws {
    if condition(self) { return }
    let met = Promise<Void>()
    changes.append { [weak self] in if let self, condition(self) { met.fulfil() } }
    try await met.soon(what)
  }

  private func changed() { for change in changes { change() } }
}

/// Whether a text is JSON of this value.
@EventLoopActor
func isJSON(_ text: String, _ expected: String) throws -> Bool {
  try JSONVariant(parsing: text) == JSONVariant(parsing: expected)
}
