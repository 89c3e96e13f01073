public import ArgumentParser
import Glibc
public import Simulator
import SystemPackage
import SystemdEvent

/// The command line.
@main
struct QMPSimulator: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "qmp-simulator",
    abstract: "Plays a QEMU for QMP clients: no machine, but QEMU's monitors, errors and events, and its failures on request.",
    usage: "qmp-simulator --listen <path> [options]",
    discussion: """
      Serves QMP until a client says 'quit' or a signal comes. Beside QEMU's own commands there are x-simulator-block, which has every \
      in-band command wait until x-simulator-unblock comes out of band, and x-simulator-emit, which has an event happen:

        qmp-simulator --listen /tmp/qmp &
        qmp-shell /tmp/qmp

      FAULTS happen to the N-th command that comes, counted over all monitors, or over one as MONITOR/N:
        drop@N            not executed, no reply
        mute@N            executed, no reply
        delay@N[:TIME]    executed later: 250ms, 2s (1s); all in-band commands wait
        garble@N          some bytes of the reply are others
        close@N[:after]   the connection closes before it is executed, or after
        die@N             everything closes at once, as if QEMU was killed
        reorder@N         its reply comes behind the next one
        fail@N[:TEXT]     not executed, answered with a GenericError
        random@RATE[:KIND,KIND...]
                          any or these of them, with this probability (0 to 1),
                          the same ones each time for the same --seed

      SCRIPTS hold replies of your own, one JSON object a line; '#' begins a comment. The entries for one command are used in order and \
      the last one for ever, unless 'times' says how often:
        {"execute": "a", "return": [], "events": [{"event": "X", "data": {}}]}
        {"execute": "a", "error": {"class": "C", "desc": "no"}, "times": 2}

      EXIT STATUS
        0      a client said 'quit', or SIGTERM, SIGINT or SIGHUP came
        1      a socket could not be made, or a script is wrong
        64     the command line is wrong
        134    a 'die' fault
      """)

  @Option(name: .long, help: ArgumentHelp("Serve a monitor on a UNIX socket at this path.", valueName: "path"), completion: .file())
  var listen: String?

  @Option(name: .long, help: ArgumentHelp("Serve a monitor on this inherited descriptor, a connected socket.", valueName: "number"))
  var fd: CInt?

  @Option(name: .long, help: ArgumentHelp("Serve one more monitor, of this id, on a UNIX socket at this path.", valueName: "id=path"))
  var monitor: [MonitorAddress] = []

  @Option(name: .long, help: ArgumentHelp("Have an HMP monitor of this id, that nobody is connected to.", valueName: "id"))
  var hmp: [String] = []

  @Flag(name: .long, help: "Have the monitors of the command line print over several lines, as pretty=on does.")
  var pretty = false

  @Option(name: .long, help: "How monitors are added at run time: as in QEMU 11.1, as in the patches before it, or not at all.")
  var dialect = SimulatedQEMU.Dialect.object

  @Option(
    name: .long, help: ArgumentHelp("Something that goes wrong; see FAULTS.", valueName: "kind@n[:value]"), transform: FaultOption.init)
  var fault: [FaultOption] = []

  @Option(name: .long, help: ArgumentHelp("What random and garble faults depend on.", valueName: "number"))
  var seed: UInt64 = 0

  @Option(name: .long, help: ArgumentHelp("A file of replies; see SCRIPTS.", valueName: "file"), completion: .file())
  var script: String?

  @Option(name: .long, help: ArgumentHelp("The version of QEMU to be.", valueName: "version"))
  var versionOf = SimulatedQEMU.Version(major: 11, minor: 1, micro: 2)

  @Option(name: .long, help: ArgumentHelp("The machine's name.", valueName: "name"))
  var name: String?

  @Flag(name: .long, help: "Have the machine wait for x-exit-preconfig before it is made; most commands are refused until then.")
  var preconfig = false

  @Flag(name: .long, help: "Print each command on standard error as it comes, with its number and its monitor.")
  var log = false

  func validate() throws {
    guard listen != nil || fd != nil || !monitor.isEmpty else {
      throw ValidationError("There must be a monitor: --listen, --fd or --monitor.")
    }
    let ids = [listen, fd.map(String.init)].compactMap { $0 }.indices.map { "compat_monitor\($0)" } + monitor.map(\.id) + hmp
    if let twice = ids.first(where: { id in ids.count { $0 == id } > 1 }) { throw ValidationError("There are two monitors '\(twice)'.") }
    if let fd { guard fd >= 0 else { throw ValidationError("--fd must not be negative.") } }
    guard fault.count(where: { if case .random = $0 { true } else { false } }) <= 1 else {
      throw ValidationError("There can be one 'random' only.")
    }
  }

  func run() throws {
    let status = try Simulation(self).run()
    if status != 0 { throw ExitCode(status) }
  }
}

/// `ID=PATH`.
struct MonitorAddress: ExpressibleByArgument {
  let id: String
  let path: FilePath

  init?(argument: String) {
    let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else { return nil }
    id = String(parts[0])
    path = FilePath(String(parts[1]))
  }
}

/// One `--fault`.
enum FaultOption {
  case planned(SimulatedQEMU.Fault)
  case random(SimulatedQEMU.RandomFaults)

  @Sendable
  init(_ text: String) throws {
    do throws(SimulatedQEMU.Fault.Unreadable) {
      self = text.hasPrefix("random@") ? .random(try .init(parsing: text)) : .planned(try .init(parsing: text))
    } catch {
      throw ValidationError("\(error)")
    }
  }
}

extension SimulatedQEMU.Dialect: ExpressibleByArgument {}

extension SimulatedQEMU.Version: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
  public var defaultValueDescription: String { description }
}
