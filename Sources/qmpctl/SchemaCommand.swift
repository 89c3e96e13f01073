import ArgumentParser
import Control
import QAPI
import SystemdEvent
import SystemdJSON

/// `qmpctl schema`
struct SchemaCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "schema",
    abstract: "Show which QMP commands and events a machine has, with arguments and types.",
    discussion: """
      Without COMMAND all names are listed. COMMAND may be an event too; if it is neither, the names that have it in them are listed. It \
      is what this machine's QEMU says of itself, so other versions have others.
      """)

  @OptionGroup var machine: MachineOptions

  @Argument(
    help: ArgumentHelp("A command or an event, or a part of names.", valueName: "command"),
    completion: .custom { words, _, _ in Completion.commands(words, of: ["schema"]) })
  var command: String?

  @Option(name: .long, help: ArgumentHelp("How far objects in objects are shown: 1 to 8.", valueName: "levels"))
  var depth = 3

  @OptionGroup var output: OutputOptions

  func validate() throws {
    guard (1...8).contains(depth) else { throw ValidationError("--depth must be 1 to 8.") }
  }

  func execute() async throws -> CInt {
    let schema = try await machine.connect().schema()
    if let command, let entry = schema.description(of: command, depth: depth) {
      if output.json { try output.write(entry.json) } else { try StandardOutput.write(EntryText.text(of: entry, .standard())) }
      return 0
    }
    let part = command?.lowercased() ?? ""
    let commands = schema.names.commands.filter { part.isEmpty || $0.lowercased().contains(part) }.sorted()
    let events = schema.names.events.filter { part.isEmpty || $0.lowercased().contains(part) }.sorted()
    guard !commands.isEmpty || !events.isEmpty else {
      throw ControlError(
        .failed, "this machine's QEMU has no command and no event '\(part)', nor any with that in its name",
        hint: "'qmpctl schema \(machine.name)' lists all.")
    }
    if output.json {
      try output.write(
        .object([("commands", .array(commands.map { .string($0) })), ("events", .array(events.map { .string($0) }))]))
    } else {
      try StandardOutput.write((commands + events).map { "\($0)\n" }.joined())
    }
    return 0
  }
}
