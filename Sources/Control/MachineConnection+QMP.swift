import Glibc
public import QAPI
import SystemdEvent
public import SystemdJSON

extension MachineConnection {
  /// Has QEMU execute a command, on the monitor that all callers share.
  ///
  /// - Parameters:
  ///   - command: QEMU's name for it.
  ///   - descriptor: goes with it, and stays the caller's.
  /// - Returns: what QEMU returned.
  /// - Throws: ``ControlError``, with QEMU's words.
  public func execute(_ command: String, _ arguments: JSONVariant? = nil, descriptor: CInt? = nil) async throws(ControlError) -> JSONVariant
  {
    let parameters = JSONVariant.object([
      "command": .string(command), "arguments": arguments, "fileDescriptorIndex": descriptor.map { _ in .integer(0) },
    ])
    let reply = try await call("io.qmpvarlink.QMP.Execute", parameters, descriptors: descriptor.map { [$0] } ?? [])
    return reply["return"] ?? .object([:])
  }

  /// What this machine's QEMU says of its commands and events.
  ///
  /// - Throws: ``ControlError``.
  public func schema() async throws(ControlError) -> Schema {
    let reply = try await execute("query-qmp-schema")
    do throws(SchemaError) {
      return try SchemaReader.read(reply)
    } catch {
      throw ControlError(.failed, "the machine describes its commands in a way that is not understood: \(error)")
    }
  }
}
