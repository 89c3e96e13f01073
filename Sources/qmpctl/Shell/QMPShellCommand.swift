import ArgumentParser
import Control
import Glibc
import SystemdEvent
import Terminal

/// `qmpctl qmp`
struct QMPShellCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "qmp",
    abstract: "Speak QMP with a machine, on a monitor of its own.",
    discussion: """
      At a terminal this is a shell: Tab completes commands and arguments, and lists them when pressed twice; Ctrl-R searches what was \
      entered before; 'help COMMAND' describes a command; Ctrl-C drops a line, Ctrl-D ends. A command is

        query-block
        blockdev-add driver=qcow2 node-name=n0 file.driver=file file.filename=/tmp/disk.qcow2
        device_add {"driver": "virtio-net-pci", "id": "net1"}
        {"execute": "query-name", "id": 1}

      Otherwise one command a line is read from standard input, or the one behind '--' is executed, and each reply is one line of JSON. \
      The first error ends it, with exit status 1. Lines are kept in $XDG_STATE_HOME/qmpctl/history, but for those that begin with a \
      blank or are about a password or a secret.
      """)

  @OptionGroup var machine: MachineOptions

  @Flag(name: .long, help: "Commands are for the human monitor, and their replies text.")
  var hmp = false

  @Flag(name: .long, help: "Print events too, as they come (at a terminal they always are).")
  var events = false

  @Flag(name: .long, help: "Go on after an error. The exit status is 1 all the same.")
  var keepGoing = false

  @OptionGroup var kind: SessionOptions

  @Argument(
    parsing: .postTerminator, help: ArgumentHelp("The command to execute, and its arguments.", valueName: "command"),
    completion: .custom { words, _, _ in Completion.commands(words, of: ["qmp"]) })
  var command: [String] = []

  static var handledSignals: [CInt] { [SIGWINCH] }

  func execute() async throws -> CInt {
    let connection = try await machine.connect()
    let session = try QMPSession(
      try await connection.acquireQMP(access: kind.access?.rawValue, mode: kind.mode?.rawValue), over: connection,
      within: machine.time.limit)
    if command.isEmpty, RawTerminal.isUsable() { return try await QMPShell.start(on: session, isHMP: hmp).run() }
    let script = QMPScript(session, isHMP: hmp, showsEvents: events, keepsGoing: keepGoing)
    return command.isEmpty ? try await script.run(StandardInput()) : try await script.run(command)
  }
}
