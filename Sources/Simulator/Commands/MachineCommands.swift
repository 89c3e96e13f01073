import OrderedCollections
import QEMUJSON
import SystemdEvent

extension Command {
  /// Those that QEMU executes before the machine is made, and the simulator's own. No QEMU tells whether `query-monitors` is among
  /// them; `query-chardev`, which is like it, is.
  static let allowedInPreconfig: Set = [
    "qmp_capabilities", "query-commands", "query-version", "query-name", "query-status", "query-qmp-schema", "x-exit-preconfig", "quit",
    "query-chardev", "query-monitors", "object-add", "object-del", "qom-list", "qom-get", "qom-set", "qom-list-get", "qom-list-types",
    "x-simulator-block", "x-simulator-unblock", "x-simulator-emit",
  ]

  /// The commands of the machine, and of QMP itself.
  static let machine: [Command] = [
    Command("qmp_capabilities", [Parameter("enable", .array(.enumeration(["oob"])), optional: true)]) { call throws(CommandFailure) in
      guard !call.monitor.isNegotiated else {
        throw CommandFailure("Capabilities negotiation is already complete, command ignored", class: "CommandNotFound")
      }
      call.monitor.negotiated(outOfBand: call.arguments["enable"]?.elements?.contains("oob") ?? false)
      return .nothing
    },
    Command("query-commands", returns: .array(.object)) { call throws(CommandFailure) in
      .array(call.qemu.commandNames.map { ["name": .string($0)] })
    },
    Command("query-version") { call throws(CommandFailure) in call.qemu.versionInfo },
    Command("query-name") { call throws(CommandFailure) in
      call.qemu.configuration.name.map { ["name": .string($0)] } ?? .nothing
    },
    Command("query-status") { call throws(CommandFailure) in
      let status = call.qemu.isInPreconfig ? "prelaunch" : call.qemu.isRunning ? "running" : "paused"
      return ["running": .boolean(call.qemu.isRunning), "status": .string(status)]
    },
    Command("query-qmp-schema", returns: .array(.object)) { call throws(CommandFailure) in call.qemu.schema },
    Command("x-exit-preconfig") { call throws(CommandFailure) in
      guard call.qemu.isInPreconfig else { throw CommandFailure("The command is permitted only before machine initialization") }
      call.qemu.isInPreconfig = false
      if call.qemu.configuration.isRunning {
        call.qemu.isRunning = true
        call.qemu.emit("RESUME")
      }
      return .nothing
    },
    Command("stop") { call throws(CommandFailure) in
      if call.qemu.isRunning {
        call.qemu.isRunning = false
        call.qemu.emit("STOP")
      }
      return .nothing
    },
    Command("cont") { call throws(CommandFailure) in
      if !call.qemu.isRunning {
        call.qemu.isRunning = true
        call.qemu.emit("RESUME")
      }
      return .nothing
    },
    Command("system_reset") { call throws(CommandFailure) in
      call.qemu.emit("RESET", data: ["guest": false, "reason": "host-qmp-system-reset"])
      return .nothing
    },
    Command("system_powerdown") { call throws(CommandFailure) in
      call.qemu.emit("POWERDOWN")
      return .nothing
    },
    Command("quit") { call throws(CommandFailure) in
      let qemu = call.qemu
      qemu.emit("SHUTDOWN", data: ["guest": false, "reason": "host-qmp-quit"])
      call.afterReply { qemu.end(.quit) }
      return .nothing
    },
  ]

  /// Those that overtake what waits.
  static let outOfBand: [Command] = [
    Command("migrate-pause", allowsOutOfBand: true) { _ throws(CommandFailure) in
      throw CommandFailure("migrate-pause is currently only supported during postcopy-active or postcopy-recover state")
    },
    Command("migrate-recover", [Parameter("uri", .string)], allowsOutOfBand: true) { _ throws(CommandFailure) in
      throw CommandFailure("Migrate recover can only be run when postcopy is paused.")
    },
    Command("query-yank", returns: .array(.object), allowsOutOfBand: true) { call throws(CommandFailure) in
      .array(call.qemu.chardevs.values.filter { $0.kind == .socket }.map { ["type": "chardev", "id": .string($0.id)] })
    },
    Command("yank", [Parameter("instances", .array(.object))], allowsOutOfBand: true) { call throws(CommandFailure) in
      for instance in call.arguments["instances"]?.elements ?? [] {
        guard instance["type"] == "chardev", let id = instance["id"]?.string, let chardev = call.qemu.chardevs[id], chardev.kind == .socket
        else { throw CommandFailure("Instance not found", class: "DeviceNotFound") }
        call.afterReply { chardev.disconnect() }
      }
      return .nothing
    },
  ]

  /// The simulator's own, for tests of what blocks.
  static let simulator: [Command] = [
    // Everything in-band waits, the reply to this one too.
    Command("x-simulator-block") { call throws(CommandFailure) in
      call.isBlocking = true
      return .nothing
    },
    // It may come before the command that blocks has had its turn.
    Command("x-simulator-unblock", allowsOutOfBand: true) { call throws(CommandFailure) in
      let qemu = call.qemu
      call.afterReply { qemu.dispatcher.unblockOrLetPass() }
      return .nothing
    },
    // Has every negotiated monitor get an event.
    Command("x-simulator-emit", [Parameter("event", .string), Parameter("data", .object, optional: true)], allowsOutOfBand: true) {
      call throws(CommandFailure) in
      call.qemu.emit(call.string("event"), data: call.arguments["data"])
      return .nothing
    },
  ]
}
