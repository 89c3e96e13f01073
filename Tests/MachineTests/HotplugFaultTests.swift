import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@testable import Machine
@testable import QMP

/// What comes of a hotplug and of a removal when one thing goes wrong: enumerated, every fault at every command.
@Suite(.onEventLoop, .serialized) struct HotplugFaultTests {
  typealias Fault = SimulatedQEMU.Fault

  static let kinds: [Fault.Kind] = [
    .drop, .mute, .delay(.milliseconds(5)), .garble, .close(afterExecution: false), .close(afterExecution: true), .die, .reorder,
    .fail("it failed"),
  ]
  static let dialects = [SimulatedQEMU.Dialect.object, .monitorAdd]

  /// A machine whose QEMU is simulated, and the daemons that come one after the other to manage it.
  @EventLoopActor
  final class Scene {
    let qemu: SimulatedQEMU
    private let folder: TemporaryFolder
    private var client: QMPClient
    private(set) var control: ControlMonitor
    private(set) var monitors: Monitors

    init(_ dialect: SimulatedQEMU.Dialect) async throws {
      var configuration = SimulatedQEMU.Configuration()
      configuration.dialect = dialect
      qemu = SimulatedQEMU(configuration)
      folder = try TemporaryFolder()
      try qemu.addMonitor("main", listeningAt: folder.path.appending("qmp"))
      (client, control, monitors) = try await Self.daemon(folder.path.appending("qmp"))
    }

    private static func daemon(_ path: FilePath) async throws -> (QMPClient, ControlMonitor, Monitors) {
      let client = try QMPClient(connectingTo: path)
      _ = try await client.negotiate()
      let control = ControlMonitor(client, id: nil, responseLimit: patience, logger: ScriptedQEMU.silent)
      return (client, control, Monitors(control: control, strayPatience: .milliseconds(1), logger: ScriptedQEMU.silent))
    }

    /// The next daemon, which clears up behind the one before.
    func replaceDaemon() async throws {
      control.close()
      (client, control, monitors) = try await Self.daemon(folder.path.appending("qmp"))
      try await monitors.removeStrays()
    }

    /// Adds a monitor, and gives our end of it or the error.
    func add(_ id: String? = "extra") async -> Result<Peer, any Error> {
      do { return .success(try Peer(try await monitors.add(id).takeSocket())) } catch { return .failure(error) }
    }

    /// Has a fault happen at the `number`-th command from now on.
    func inject(_ kind: Fault.Kind, at number: Int) {
      qemu.inject(Fault(kind, at: qemu.commandCount + number))
      // Where a reply is lost, or its end is, the daemon must not be as patient as the test.
      if [.drop, .mute, .reorder, .garble].contains(kind) { client.responseLimit = .milliseconds(50) }
    }

    /// Waits until nothing of what a fault has left is there any more, by the work of the daemon or of the next one.
    func settle(_ what: String) async throws {
      if control.lost.result != nil { try await replaceDaemon() }
      await control.recovered()
      client.responseLimit = patience
      // A daemon that got an answer too late takes back in the background what came of the command.
      for _ in 0..<1000 where !leftovers.isEmpty { _ = try? await control.execute("query-name") }
      #expect(leftovers == [], "\(what)")
    }

    /// The name of a descriptor that lay at the control monitor when its connection broke is not known to anybody any more; the
    /// next one of that name takes its place.
    var leftovers: [String] { qemu.leftovers.filter { !$0.hasPrefix("descriptor") } }

    func addUseAndRemove(_ what: String) async throws {
      let monitor = try await add().get()
      try await monitor.write(#"{"execute":"qmp_capabilities","id":1}"#)
      try await monitor.wait(for: #"{"return": {}, "id": 1}"#)
      try await monitors.remove("extra")
      try await monitor.waitForEnd()
      #expect(qemu.leftovers == [], "\(what)")
    }
  }

  /// How many commands it takes a new daemon to add a monitor.
  @EventLoopActor
  private static func commands(toAdd dialect: SimulatedQEMU.Dialect) async throws -> Int {
    let scene = try await Scene(dialect)
    let before = scene.qemu.commandCount
    _ = try await scene.add().get()
    return scene.qemu.commandCount - before
  }

  @Test("adding: one clear error or none, nothing left, and the next one works", arguments: dialects, kinds.indices) @EventLoopActor
  func adding(dialect: SimulatedQEMU.Dialect, kind: Int) async throws {
    let count = try await Self.commands(toAdd: dialect)
    #expect(count == (dialect == .object ? 5 : 6))
    for number in 1...count {
      let what = "\(Self.kinds[kind]) at \(number), \(dialect)"
      let scene = try await Scene(dialect)
      scene.inject(Self.kinds[kind], at: number)
      let outcome = await scene.add()
      if case .success(let monitor) = outcome {
        // Added in spite of it: then it works.
        try await monitor.wait(for: #""QMP""#)
        try await scene.monitors.remove("extra")
        try await monitor.waitForEnd()
      }
      switch Self.kinds[kind] {
      // What the questions before bring in is not always needed.
      case .fail: #expect(outcome.isFailure || number <= count - 3, "\(what)")
      case .delay: #expect(!outcome.isFailure, "\(what)")
      case .die:
        #expect(outcome.isFailure, "\(what)")
        continue
      default: break
      }
      if case .failure(let error) = outcome { #expect(error is MachineError, "\(what): \(error)") }
      try await scene.settle(what)
      try await scene.addUseAndRemove(what)
    }
  }

  @Test("removing: it is gone in the end, whatever happened on the way", arguments: dialects, kinds.indices) @EventLoopActor
  func removing(dialect: SimulatedQEMU.Dialect, kind: Int) async throws {
    for number in 1...3 {
      let what = "\(Self.kinds[kind]) at \(number), \(dialect)"
      let scene = try await Scene(dialect)
      let monitor = try await scene.add().get()
      scene.inject(Self.kinds[kind], at: number)
      var failure: (any Error)?
      do { try await scene.monitors.remove("extra") } catch { failure = error }
      if let failure { #expect(failure is MachineError, "\(what): \(failure)") }
      if case .die = Self.kinds[kind] {
        #expect(failure != nil, "\(what)")
        try await monitor.waitForEnd()
        continue
      }
      if case .fail = Self.kinds[kind], number > 1 {
        // QEMU would not; another time it does.
        #expect(failure != nil, "\(what)")
        await scene.monitors.discard("extra")
      }
      // The other end of a monitor is closed when its daemon has died.
      if scene.control.lost.result != nil { monitor.close() }
      try await scene.settle(what)
      try await scene.addUseAndRemove(what)
    }
  }

  @Test("taking back what a failed hotplug made, when that goes wrong too: the next daemon clears up", arguments: dialects, kinds.indices)
  @EventLoopActor
  func takingBack(dialect: SimulatedQEMU.Dialect, kind: Int) async throws {
    let count = try await Self.commands(toAdd: dialect)
    // A getfd that fails leaves nothing.
    for failing in (count - 1)...count {
      let what = "a failure at \(failing), then \(Self.kinds[kind]), \(dialect)"
      let scene = try await Scene(dialect)
      scene.inject(.fail("it failed"), at: failing)
      scene.inject(Self.kinds[kind], at: count + 1)
      let outcome = await scene.add()
      #expect(outcome.isFailure, "\(what)")
      if scene.qemu.ended.result != nil { continue }
      try await scene.replaceDaemon()
      try await scene.settle(what)
      try await scene.addUseAndRemove(what)
    }
  }
}

extension Result {
  var isFailure: Bool { failure != nil }
}
