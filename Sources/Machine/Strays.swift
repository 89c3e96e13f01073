import Logging
import QMP
import SystemdEvent
import SystemdJSON

/// What daemons that are dead left in QEMU.
extension Monitors {
  /// What is in QEMU that a daemon of ours made, this one or another.
  struct Ours {
    var monitors: Set<String> = []
    /// The ids of monitors whose chardevs there are, and whether those have nobody at their other end.
    var chardevs: [String: Bool] = [:]
    var ids: Set<String> { monitors.union(chardevs.keys) }
    /// Those that nobody is at the other end of.
    var strays: Set<String> { Set(chardevs.filter(\.value).keys).union(monitors.subtracting(chardevs.keys)) }
  }

  func findOurs() async throws(QMPError) -> Ours {
    var ours = Ours()
    for monitor in try await knownDialect()?.list(control, existing: existing) ?? [] {
      if Self.isOurs(monitor.id) || monitor.chardev == Self.chardev(of: monitor.id) { ours.monitors.insert(monitor.id) }
    }
    for chardev in try await listChardevs() where Self.isOurs(chardev.id) {
      // A chardev without a monitor does not notice that its other end has gone.
      ours.chardevs[Self.monitor(of: chardev.id)] = chardev.isUnused || chardev.isDisconnected
    }
    return ours
  }

  /// Whether an id is one that we make for a monitor or its chardev. Those of devices stay as long as the machine.
  private static func isOurs(_ id: String) -> Bool { id.hasPrefix(prefix) && !id.hasPrefix(devicePrefix) }

  /// Removes the rest of a monitor whose object somebody else has deleted: QEMU says nothing on it any more, not even its end,
  /// before the chardev goes too.
  func discardIfDeleted(_ id: String) async {
    guard let ours = try? await findOurs(), !ours.monitors.contains(id), ours.chardevs[id] != nil else { return }
    await discard(id)
  }

  /// Removes what daemons that are dead left in QEMU: monitors whose other end is gone, and chardevs that never got one.
  ///
  /// What another daemon has in use is connected, and stays. So does what was only just left: a command may be under way on
  /// it. QEMU executes in-band commands one at a time, so once one of ours has been answered after the monitor was seen
  /// without its other end, which drops what waits on it, nothing of it is under way.
  func removeStrays() async throws(QMPError) {
    let isOver = Promise<Void>()
    strayRemoval = isOver
    defer {
      strayRemoval = nil
      isOver.fulfil()
    }
    let before = try await findOurs().strays
    guard !before.isEmpty, let dialect = try await knownDialect() else { return }
    let patience = Promise<Void>()
    let timer = try? EventSource.timer(after: strayPatience) { patience.fulfil() }
    if timer != nil { await patience.value }
    let strays = try await findOurs().strays.intersection(before)
    var removed = 0
    for id in strays.sorted() {
      let removal = [
        QMPCommand("query-status"), dialect.remove(id),
        QMPCommand("chardev-remove", .object(["id": .string(Self.chardev(of: id))])),
      ]
      var succeeded = 0
      var isLeft = false
      for command in removal {
        do {
          try await control.execute(command.name, command.arguments)
          succeeded += 1
        } catch .execute(_, _, let desc) {
          // One that was only half made has not both.
          if desc.contains("not found") { continue }
          isLeft = true
          logger.warning("could not remove the stray monitor \(id): \(desc)")
        }
      }
      // The first does nothing but wait.
      if succeeded > 1, !isLeft { removed += 1 }
    }
    if removed > 0 { logger.notice("removed \(removed) monitors that a daemon before left behind") }
  }
}
