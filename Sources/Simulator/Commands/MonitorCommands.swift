import OrderedCollections
import QEMUJSON
import SystemdEvent

extension Command {
  /// The commands of the monitor-hotplug series, which the `monitor-add` dialect has instead of objects.
  ///
  /// Its patches are not part of any release; where their exact words are not known, those of the object dialect's errors for the same
  /// mistake are used.
  static let monitorAdd: [Command] = [
    Command("monitor-add", [Parameter("id", .string), Parameter("chardev", .string), Parameter("pretty", .boolean, optional: true)]) {
      call throws(CommandFailure) in
      let id = call.string("id")
      guard call.qemu.monitors[id] == nil else { throw CommandFailure("monitor '\(id)' already exists") }
      try call.qemu.requireRoomForObject()
      try call.qemu.addMonitor(id, MonitorOptions(monitorAdd: call.arguments))
      return .nothing
    },
    Command("monitor-remove", [Parameter("id", .string)]) { call throws(CommandFailure) in
      let id = call.string("id")
      guard let monitor = call.qemu.monitors[id] else { throw CommandFailure("monitor '\(id)' not found") }
      guard monitor.isDynamic else { throw CommandFailure("monitor '\(id)' was not added dynamically and cannot be removed") }
      let chardev = monitor.chardev
      call.qemu.remove(monitor)
      if monitor === call.monitor {
        // The reply still goes out; the connection ends behind it.
        call.removesItself = true
        call.afterReply { chardev.disconnect() }
      } else {
        chardev.disconnect()
      }
      return .nothing
    },
    Command("query-monitors", returns: .array(.object)) { call throws(CommandFailure) in
      .array(
        call.qemu.monitors.values.map { monitor in
          [
            "id": .string(monitor.id), "mode": .string(monitor.mode.rawValue), "chardev": .string(monitor.chardev.id),
            "dynamic": .boolean(monitor.isDynamic),
          ]
        })
    },
  ]
}
