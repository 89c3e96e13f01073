import Control
import QAPI
import QMP
import SystemdEvent
import SystemdJSON

/// An upgraded session, on which commands are executed one after another.
@EventLoopActor
final class QMPSession {
  /// QEMU's answer to a command.
  struct Reply {
    /// As it came.
    let text: String
    /// The value of `return`, or QEMU's error.
    let result: Result<JSONVariant, Refusal>
  }
  /// QEMU's error.
  struct Refusal: Error, CustomStringConvertible {
    let errorClass: String
    let desc: String
    var description: String { "\(errorClass): \(desc)" }
  }

  /// The machine's name.
  let name: String
  private let client: QMPClient
  /// Carries the session, if the machine is on another host.
  private let connection: MachineConnection
  private let limit: Duration
  private var knownSchema: Schema?

  /// - Parameters:
  ///   - descriptor: of a connection that was upgraded.
  ///   - limit: how long the greeting and the schema may take. Commands take as long as they take.
  init(_ descriptor: consuming OwnedDescriptor, over connection: MachineConnection, within limit: Duration) throws {
    name = connection.address.name
    self.connection = connection
    self.limit = limit
    client = try QMPClient(descriptor)
    client.keepsEventText = true
  }

  /// Called with each event.
  var onEvent: ((QMPEvent) -> Void)? {
    get { client.onEvent }
    set { client.onEvent = newValue }
  }

  /// Fulfilled at the end of the session.
  var ended: Promise<QMPError> { client.disconnected }

  /// - Returns: QEMU's version.
  /// - Throws: ``ControlError``.
  func negotiate() async throws(ControlError) -> String {
    do throws(QMPError) { return try await client.negotiate(within: limit).version } catch { throw failure(error) }
  }

  /// What this QEMU can do; asked for once.
  ///
  /// - Throws: ``ControlError``.
  func schema() async throws(ControlError) -> Schema {
    if let knownSchema { return knownSchema }
    let reply = try await send(QMPRequest("query-qmp-schema"))
    if case .failure(let refusal) = reply.result { throw ControlError(.failed, "QEMU does not tell its schema: \(refusal)") }
    do throws(SchemaError) {
      var reader = SchemaReader()
      for entry in try SchemaText(Array(reply.text.utf8)) { try reader.read(text: entry) }
      knownSchema = reader.schema
      return reader.schema
    } catch {
      throw ControlError(.failed, "QEMU's schema is not to be understood: \(error)")
    }
  }

  /// Executes a command, however long that takes.
  ///
  /// - Throws: ``ControlError`` if the session ends before the reply.
  func send(_ request: QMPRequest) async throws(ControlError) -> Reply {
    let reply = Promise<Result<[UInt8], QMPError>>()
    client.submit(Array(request.text.utf8)) { reply.fulfil($0) }
    switch await reply.value {
    case .success(let bytes): return Reply(String(decoding: bytes, as: UTF8.self))
    case .failure(let error): throw failure(error)
    }
  }

  /// What became of the session, in words.
  func failure(_ error: QMPError) -> ControlError {
    switch error {
    case .disconnected:
      ControlError(
        .unreachable, "the session with machine '\(name)' has ended", hint: "QEMU or its daemon has gone, or somebody closed the session.")
    default: ControlError(.unreachable, "machine '\(name)': \(error)")
    }
  }
}

extension QMPSession.Reply {
  @EventLoopActor fileprivate init(_ text: String) {
    self.text = text
    let message = try? JSONVariant(parsing: text)
    if let value = message?["return"] {
      result = .success(value)
    } else if let error = message?["error"], let errorClass = error["class"]?.string {
      result = .failure(.init(errorClass: errorClass, desc: error["desc"]?.string ?? ""))
    } else {
      // QEMU writes what sd-json does not read, such as noncharacters in strings: it is shown as it is.
      result = text.hasPrefix(#"{"error""#) ? .failure(.init(errorClass: "error", desc: text)) : .success(.string(text))
    }
  }
}
