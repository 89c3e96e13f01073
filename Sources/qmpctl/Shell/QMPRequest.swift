import QAPI
import SystemdEvent
import SystemdJSON

/// A command as it goes to QEMU.
@EventLoopActor
struct QMPRequest {
  let name: String
  /// One JSON object.
  let text: String

  init(_ name: String, _ arguments: JSONVariant? = nil) {
    self.name = name
    text = JSONVariant.object(["execute": .string(name), "arguments": arguments]).text
  }

  /// A command of the human monitor.
  static func hmp(_ line: String) -> QMPRequest {
    QMPRequest("human-monitor-command", .object(["command-line": .string(line)]))
  }

  /// Makes a command of what was typed.
  ///
  /// - Parameter schema: asked for if there are arguments to check.
  /// - Throws: ``ArgumentError``, and what `schema` throws.
  init(_ line: TypedLine, schema: () async throws -> Schema) async throws {
    guard let first = line.words.first else { throw InvalidCommand(description: "there is no command") }
    if first.form == .json, first.key == nil {
      guard line.words.count == 1 else { throw InvalidCommand(description: "a command that is JSON has nothing behind it") }
      try await self.init(json: first.value, schema: schema)
    } else if first.key != nil || first.form == .json {
      throw InvalidCommand(description: "a line begins with the name of a command")
    } else {
      let arguments = line.words.dropFirst()
      // QEMU says by itself that it does not know a command, or what is missing.
      self.init(first.value, arguments.isEmpty ? nil : try await schema().arguments(of: first.value, from: arguments))
    }
  }

  private init(json: String, schema: () async throws -> Schema) async throws {
    let message: JSONVariant
    do { message = try JSONVariant(parsing: json) } catch { throw InvalidCommand(description: "\(error)") }
    guard message.isObject, let name = message["execute"]?.string else {
      // Out-of-band execution was not asked for in the negotiation.
      throw InvalidCommand(description: "a command that is JSON is an object with 'execute'")
    }
    if message["arguments"] != nil { try await schema().check(message) }
    self.name = name
    text = message.text
  }
}

/// A line that is no command.
struct InvalidCommand: Error, CustomStringConvertible {
  let description: String
}
