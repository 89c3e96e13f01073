import Foundation
import Glibc
import Logging
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing
import Varlink

@testable import Bridge

@Suite("the limits of questions to polkit", .onEventLoop, .serialized)
struct PolkitLimitsTests {
  @Test("beyond so many questions at once the answer is no, without a question") @EventLoopActor
  func number() async throws {
    try await Self.withAuthority { authority, folder in
      authority.verdict = { _ in .later }
      let service = try Service(Polkit.Limits(questions: 3), folder)
      let callers = try (0..<3).map { _ in try service.connect() }
      for caller in callers { try await caller.send("test.polkit.Ask") }
      try await authority.wait("three questions") { $0.questions.count == 3 }
      #expect(try await service.connect().call("test.polkit.Ask").contains("3 questions are under way"))
      #expect(authority.questions.count == 3)
      try authority.release(.authorised)
      for caller in callers { #expect(try await caller.receive().contains("authorised")) }
      authority.verdict = { _ in .no }
      #expect(try await service.connect().call("test.polkit.Ask").contains("denied(nil)"))
    }
  }

  @Test("polkit has a time to answer, and a person another; then the question is taken back") @EventLoopActor
  func time() async throws {
    try await Self.withAuthority { authority, folder in
      authority.verdict = { _ in .later }
      let service = try Service(Polkit.Limits(answer: .milliseconds(1), interaction: .milliseconds(2)), folder)
      #expect(try await service.connect().call("test.polkit.Ask").contains("absent"))
      #expect(
        try await service.connect().call("test.polkit.Ask", #"{"allowInteractiveAuthentication": true}"#).contains(
          "nobody authenticated in time"))
      try await authority.wait("two cancellations") { $0.cancelled.count == 2 }
      #expect(authority.cancelled == authority.questions.map(\.cancellation))
    }
  }

  @Test("many calls on one connection leave nothing at it, nor descriptors") @EventLoopActor
  func manyCalls() async throws {
    try await Self.withAuthority { authority, folder in
      authority.verdict = { _ in .authorised }
      let service = try Service(Polkit.Limits(), folder)
      let caller = try service.connect()
      for _ in 0..<10 { #expect(try await caller.call("test.polkit.Ask").contains("authorised")) }
      let before = RunningDaemon.descriptorCount(of: getpid())
      for _ in 0..<500 { #expect(try await caller.call("test.polkit.Ask").contains("authorised")) }
      #expect(RunningDaemon.descriptorCount(of: getpid()) <= before)
    }
  }

  // MARK: the set-up

  /// A server whose one method says what polkit answered.
  @EventLoopActor
  private final class Service {
    private let server: VarlinkServer
    private let socket: FilePath

    init(_ limits: Polkit.Limits, _ folder: FilePath) throws {
      let polkit = Polkit(machine: "m", limits: limits, logger: Logger(label: "polkit"))
      server = try VarlinkServer(.init(vendor: "", product: "", version: "")) { _ in .expectedMore }
      try server.add(
        VarlinkInterface(parsing: "interface test.polkit\nmethod Ask(allowInteractiveAuthentication: ?bool) -> (answer: string)\n"))
      try server.bind("test.polkit.Ask") { call in
        let answer = await polkit.ask(.observe, for: call)
        return .object(["answer": .string("\(answer)")])
      }
      socket = folder.appending("service")
      try server.listen(on: socket, mode: 0o600)
      try server.serve()
    }

    func connect() throws -> TestSupport.VarlinkPeer { TestSupport.VarlinkPeer(try Peer(.connected(to: socket))) }
  }

  @EventLoopActor
  private static func withAuthority(_ body: @escaping @EventLoopActor (PolkitAuthority, FilePath) async throws -> Void) async throws {
    let script = FilePath(try #require(Bundle.module.path(forResource: "run_bus", ofType: nil, inDirectory: "Clients")))
    try await withTemporaryDirectory { folder in
      try await withBus(script, in: folder) { address in
        // The daemon's own way to the bus; nothing else in this process has one.
        setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1)
        defer { unsetenv("DBUS_SYSTEM_BUS_ADDRESS") }
        let authority = try PolkitAuthority(at: address)
        try await body(authority, folder)
        authority.end()
      }
    }
  }
}
