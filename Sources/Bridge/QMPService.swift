public import Logging
public import Machine
import QAPI
import QMP
public import SystemdEvent
import SystemdJSON
public import Varlink

/// `io.qmpvarlink.QMP`: every command and every event of QEMU, typed, as the QEMU that runs describes them.
///
/// QEMU takes some milliseconds to describe itself, and so do we to understand it, so this is for after the service is up: the
/// interface is added to a server that serves already. What is not bound to the loop's thread happens on another meanwhile, and
/// the rest in slices.
@EventLoopActor
public final class QMPService {
  public nonisolated static let name = "io.qmpvarlink.QMP"
  /// How long the loop is kept at a time.
  private static let slice = Duration.milliseconds(2)

  let translation: Translation
  let machine: Machine
  let logger: Logger
  /// QEMU's names for commands that it does not answer when they succeed.
  let unanswered: Set<String>

  private init(_ translation: Translation, _ machine: Machine, _ logger: Logger) {
    self.translation = translation
    self.machine = machine
    self.logger = logger
    unanswered = Set(translation.commands.lazy.filter { !$0.isAnswered }.map(\.name))
  }

  /// Asks QEMU what it can, adds that as an interface to `server`, and serves the calls. If it cannot be done, the log says why,
  /// and the daemon goes on without the interface.
  ///
  /// - Parameter authorisation: is told which commands the methods are.
  /// - Returns: whether it is served.
  public static func add(
    to server: VarlinkServer, machine: Machine, authorisation: Authorisation? = nil, logger: Logger
  ) async -> Bool {
    do {
      try await add(to: server, machine, authorisation, logger)
      // A description that is a quarter of a megabyte as text has been here several times over.
      returnFreeMemory()
      return true
    } catch {
      if machine.disconnected.result == nil { logger.warning("\(name) is not served: \(error)") }
      return false
    }
  }

  private static func add(
    to server: VarlinkServer, _ machine: Machine, _ authorisation: Authorisation?, _ logger: Logger
  ) async throws {
    let start = ContinuousClock.now
    let reply = try await schemaReply(of: machine)
    let asked = ContinuousClock.now
    let schema = try await schema(from: reply)
    let (translation, parsed) = try await onOwnThread {
      var translation = try Translation(of: schema, interface: name)
      let parsed = try VarlinkInterface.Parsed(translation.text)
      translation.forgetDefinition()
      return (translation, parsed)
    }
    let service = QMPService(translation, machine, logger)
    authorisation?.add(Dictionary(uniqueKeysWithValues: translation.commands.map { ("\(name).\($0.method)", $0.name) }))
    try server.add(VarlinkInterface(parsed, kinds: ["SubscribeEvents": .more]))
    try service.bind(to: server)
    let milliseconds = { (duration: Duration) in "\(Int((duration / .milliseconds(1)).rounded()))" }
    logger.info(
      "serving \(name): \(translation.commands.count) commands and \(translation.events.count) events",
      metadata: ["ms-asking": "\(milliseconds(asked - start))", "ms-translating": "\(milliseconds(ContinuousClock.now - asked))"])
  }

  /// The definition of the interface as it is for `machine`.
  public static func definition(for machine: Machine) async throws -> String {
    let schema = try await schema(from: schemaReply(of: machine))
    return try await onOwnThread { try Translation(of: schema, interface: name).text }
  }

  private static func schema(from reply: [UInt8]) async throws(SchemaError) -> Schema {
    var reader = SchemaReader()
    var sliceEnd = ContinuousClock.now + slice
    for entry in try SchemaText(reply) {
      try reader.read(text: entry)
      if ContinuousClock.now >= sliceEnd {
        await nextTurn()
        sliceEnd = .now + slice
      }
    }
    return reader.schema
  }

  private static func schemaReply(of machine: Machine) async throws(MachineError) -> [UInt8] {
    while true {
      do throws(MachineError) {
        return try await machine.replyText(to: "query-qmp-schema")
      } catch {
        guard case .qmp(.timedOut) = error else { throw error }
        await machine.responding()
      }
    }
  }

  private func bind(to server: VarlinkServer) throws {
    for command in translation.commands {
      try server.bind("\(Self.name).\(command.method)") { [self] call in try await self.call(command, call) }
    }
    try server.bind("\(Self.name).Execute") { [self] call in try await execute(call) }
    try server.bind("\(Self.name).SubscribeEvents", .more) { [self] call in try await subscribeEvents(call) }
  }
}

/// Lets everything else that is ready have its turn.
@EventLoopActor
func nextTurn() async {
  let turn = Promise<Void>()
  guard let source = try? EventSource.deferred(handler: { turn.fulfil() }) else { return }
  await turn.value
  withExtendedLifetime(source) {}
}
