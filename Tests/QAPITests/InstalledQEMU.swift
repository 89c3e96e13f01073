import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport

@testable import QAPI

/// The QEMU of the environment, as far as its schema goes.
@EventLoopActor
enum InstalledQEMU {
  /// The reply to `query-qmp-schema`, asked for once.
  static func schemaReply() async throws -> JSONVariant { try await reply.value }

  /// What is served of it.
  static func translation() async throws -> Translation { try await made.value }

  static let interface = "io.qmpvarlink.QMP"

  private static let reply = Task(executorPreference: EventLoop.shared) { try await ask() }
  private static let made = Task(executorPreference: EventLoop.shared) {
    try await translate()
  }

  private static func translate() async throws -> Translation {
    try Translation(of: SchemaReader.read(await reply.value), interface: interface)
  }

  private static func ask() async throws -> JSONVariant {
    // Into a file, which takes everything at once: QEMU does not wait for a pipe when it quits.
    let folder = try TemporaryFolder()
    defer { withExtendedLifetime(folder) {} }
    let output = folder.path.appending("output")
    let qemu = "qemu-system-x86_64 -machine none -nodefaults -display none -qmp stdio"
    let input = #"{"execute":"qmp_capabilities"}{"execute":"query-qmp-schema"}{"execute":"quit"}"#
    let result = try await command("sh", ["-c", "\(qemu) >\(output); cat \(output)"], input: input)
    guard let line = result.output.split(whereSeparator: \.isNewline).first(where: { $0.hasPrefix(#"{"return": ["#) }),
      let schema = try JSONVariant(parsing: String(line))["return"]
    else { throw NeverCame(description: "a schema; QEMU said:\n\(result.output.prefix(1000))\(result.error)") }
    return schema
  }
}

extension Translation {
  /// A translation of a schema that a test has written.
  @EventLoopActor
  static func of(_ schema: String) throws -> Translation {
    try Translation(of: SchemaReader.read(JSONVariant(parsing: schema)), interface: "test.qmp")
  }
}
