import QMP
import SystemdEvent
import SystemdJSON

/// What one option has QEMU do before the guest runs.
@EventLoopActor
struct DeviceAttachment {
  /// The option as the user wrote it, for when QEMU refuses.
  let option: String
  let commands: [QMPCommand]
  /// For options that are many and end up in one command: which of them it is, by what QEMU says.
  var refined: (String) -> String? = { _ in nil }
}

extension [DeviceAttachment] {
  var commands: [QMPCommand] { flatMap(\.commands) }

  /// Looks at what became of ``commands``.
  ///
  /// - Throws: ``MachineError/option(_:)`` for the first that QEMU refused, in its words; how the connection failed.
  @EventLoopActor
  func check(_ results: [Result<JSONVariant, QMPError>]) throws(MachineError) {
    var results = results[...]
    for attachment in self {
      let own = results.prefix(attachment.commands.count)
      results = results.dropFirst(attachment.commands.count)
      for case .failure(let failure) in own {
        guard case .execute(_, _, let desc) = failure else { throw .qmp(failure) }
        throw .option(OptionFailure(attachment.refined(desc) ?? attachment.option, desc, isRefusal: true))
      }
    }
  }
}
