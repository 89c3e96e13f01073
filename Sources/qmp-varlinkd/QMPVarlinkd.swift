import ArgumentParser
import Glibc

/// The command line's root.
@main
struct QMPVarlinkd: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "qmp-varlinkd",
    abstract: "Manages one QEMU virtual machine and serves it over Varlink.",
    discussion: """
      The socket 'control' in the runtime directory serves io.systemd.MachineInstance, the interface of systemd-vmspawn, \
      and io.systemd.QemuMachineInstance.AcquireQMP, which upgrades a connection to raw QMP on a monitor of its own:

        varlinkctl call unix:DIR/control io.systemd.MachineInstance.Describe '{}'
        varlinkctl call --upgrade unix:DIR/control io.systemd.QemuMachineInstance.AcquireQMP '{}'

      EXIT STATUS
        0      the guest shut down, or the daemon was asked to stop and QEMU quit
        N      QEMU's own status, if it failed; it is 1 if it did not start
        128+N  QEMU was ended by signal N
        3      the guest panicked
        64     the command line is wrong
        69     the connection to an attached QEMU was lost
        70     the daemon failed
        75     the daemon has handed over to the next (SIGUSR2)
      """,
    version: programVersion,
    subcommands: [RunCommand.self, AttachCommand.self, InterfaceCommand.self])

  static func main() {
    let words: [String]
    var file: String?
    do {
      (words, file) = try OptionsFile.expand(Array(CommandLine.arguments.dropFirst()))
    } catch {
      complain("Error: \(error)")
      exit(withError: ExitCode.validationFailure)
    }
    do {
      var command = try parsed(words)
      try command.run()
    } catch {
      // The parser does not know where a word comes from.
      if let file, exitCode(for: error) == .validationFailure { complain("qmp-varlinkd: options were read from \(file) too") }
      exit(withError: error)
    }
  }

  /// The command that the words say.
  private static func parsed(_ words: [String]) throws -> any ParsableCommand {
    // The parser looks at the options of each command that it knows of, which takes milliseconds; so it is told of one. What that one
    // does not take (help among it) is explained by the whole.
    switch words.first {
    case RunCommand.configuration.commandName?: if let command = try? RunCommand.parse(Array(words.dropFirst())) { return command }
    case AttachCommand.configuration.commandName?: if let command = try? AttachCommand.parse(Array(words.dropFirst())) { return command }
    default: break
    }
    return try parseAsRoot(words)
  }

  /// The options of this process as a next run would read them, the file of options included.
  ///
  /// - Throws: what is wrong with them.
  static func serviceOptionsByNow() throws -> ServiceOptions {
    let command = try parsed(OptionsFile.expand(Array(CommandLine.arguments.dropFirst())).words)
    if let run = command as? RunCommand { return run.service }
    if let attach = command as? AttachCommand { return attach.service }
    throw ExitCode.validationFailure
  }

  private static func complain(_ text: String) {
    var line = LineLogHandler.printable(text) + "\n"
    line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }
}

/// The version of this program, as `--version` and `org.varlink.service.GetInfo` tell it.
let programVersion = "0.1.0"
