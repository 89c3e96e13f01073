import ArgumentParser
import Control
import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON

/// `qmpctl monitors`, and `qmpctl monitor list`
struct MonitorsCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "monitors",
    abstract: "List a machine's QMP and HMP monitors.",
    discussion: """
      ORIGIN is 'static' for monitors of QEMU's command line, 'dynamic' for those made since, and 'control' for those that \
      qmp-varlinkd itself uses. What is not known, because QEMU alone carries the monitor, is '-'.
      """)

  @OptionGroup var list: MonitorList

  func execute() async throws -> CInt { try await list.execute() }
}

/// What both of them do.
struct MonitorList: ParsableArguments {
  @OptionGroup var machine: MachineOptions
  @OptionGroup var output: OutputOptions
  @OptionGroup var legend: LegendOption

  @EventLoopActor func execute() async throws -> CInt {
    let monitors = try await machine.connect().call("io.qmpvarlink.Monitors.List")["monitors"] ?? .array([])
    if output.json { try output.write(monitors) } else { try legend.write(table(of: monitors.elements ?? []), of: "monitor") }
    return 0
  }

  @EventLoopActor private func table(of monitors: [JSONVariant]) -> Table {
    var table = Table([
      "MONITOR": .left, "SPEAKS": .left, "ORIGIN": .left, "STATE": .left, "CLIENT": .left, "CHARDEV": .left, "LISTENS": .left,
    ])
    for monitor in monitors {
      let isControl = monitor["control"]?.boolean ?? false
      let isDynamic = monitor["dynamic"]?.boolean ?? false
      let state = monitor["state"]?.string
      table.add([
        Table.Cell(monitor["id"]?.string), Table.Cell(monitor["mode"]?.string),
        Table.Cell(isControl ? "control" : isDynamic ? "dynamic" : "static"),
        Table.Cell(state, SessionsCommand.emphasis(state)),
        Table.Cell(monitor["connected"]?.boolean.map { $0 ? "yes" : "no" }), Table.Cell(monitor["chardev"]?.string),
        Table.Cell(monitor["listen"]?.string),
      ])
    }
    return table
  }
}

/// `qmpctl monitor`
struct MonitorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "monitor",
    abstract: "Add, remove and list monitors.",
    subcommands: [MonitorAddCommand.self, MonitorRemoveCommand.self, MonitorListCommand.self])
}

/// `qmpctl monitor list`
struct MonitorListCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List a machine's monitors, as 'qmpctl monitors' does.")

  @OptionGroup var list: MonitorList

  func execute() async throws -> CInt { try await list.execute() }
}

/// `qmpctl monitor add`
struct MonitorAddCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "add",
    abstract: "Add a QMP monitor to a machine that runs.",
    discussion: """
      It stays until 'qmpctl monitor remove', or until the machine's daemon ends. One on a socket serves one client after the other, \
      each with a greeting of its own, and clients may come and go as they like.
      """)

  @OptionGroup var machine: MachineOptions

  @Argument(help: ArgumentHelp("What to call it: a letter, then letters, digits, '.', '_' and '-'.", valueName: "id"))
  var id: String

  @Option(
    name: .long, help: ArgumentHelp("The UNIX socket to make for it, for the machine's user alone.", valueName: "path"),
    completion: .file())
  var listen: String?

  @Option(name: .long, help: ArgumentHelp("A chardev of QEMU's that nothing else uses, instead.", valueName: "chardev"))
  var chardev: String?

  @Flag(name: .long, help: "Have QEMU break its messages into lines and indent them.")
  var pretty = false

  @OptionGroup var output: OutputOptions

  func validate() throws {
    guard (listen == nil) != (chardev == nil) else { throw ValidationError("Either --listen or --chardev is needed.") }
    guard machine.host == nil || listen?.hasPrefix("/") != false else {
      throw ValidationError("--listen must be an absolute path, for a machine on another host.")
    }
  }

  func execute() async throws -> CInt {
    let path = try listen.map { try FilePath.absolute($0).string }
    let parameters = JSONVariant.object([
      "id": .string(id), "listen": path.map { .string($0) }, "chardev": chardev.map { .string($0) },
      "pretty": pretty ? .boolean(true) : nil,
    ])
    let reply = try await machine.connect().call("io.qmpvarlink.Monitors.Add", parameters)
    if output.json { try output.write(reply) }
    return 0
  }
}

/// `qmpctl monitor remove`
struct MonitorRemoveCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "remove",
    abstract: "Remove a monitor that was made while the machine ran.",
    discussion: """
      What its client has sent is executed and answered first. A command that does not come back delays that; the removal goes on if \
      this does not wait for it any longer.
      """)

  @OptionGroup var machine: MachineOptions

  @Argument(
    help: ArgumentHelp("Which one.", valueName: "id"),
    completion: .custom { words, _, _ in Completion.monitors(words, of: ["monitor", "remove"]) })
  var id: String

  @OptionGroup var output: OutputOptions

  func execute() async throws -> CInt {
    let reply = try await machine.connect().call("io.qmpvarlink.Monitors.Remove", .object(["id": .string(id)]))
    if output.json { try output.write(reply) }
    return 0
  }
}
