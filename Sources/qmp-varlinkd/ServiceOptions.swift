public import ArgumentParser
public import Bridge
import Glibc
public import Logging
public import Machine
public import SystemPackage
import SystemdBus

/// What both ways of getting at a machine have in common.
struct ServiceOptions: ParsableArguments {
  @Option(name: .long, help: ArgumentHelp("The machine's name: letters, digits, dashes and dots.", valueName: "name"))
  var machine: MachineName

  /// For the help: ``OptionsFile`` has put the file's options in its place before anything is parsed.
  @Option(
    name: .long,
    help: ArgumentHelp(
      """
      Read further options from a file, one a line, as they are written here: '--memory=2G'. What is behind the first blank or '=' is \
      the value, without quotes. Empty lines and those that begin with '#' do not count. Behind a line '--' each line is an argument \
      for QEMU. Options behind this one win.
      """, valueName: "file"),
    completion: .file())
  var config: FilePath?

  @Option(
    name: .long,
    help: ArgumentHelp(
      """
      Where the socket 'control' is made. Default: $RUNTIME_DIRECTORY if set, else /run/qmp-varlink/NAME with --system and \
      $XDG_RUNTIME_DIR/qmp-varlink/NAME with --user.
      """, valueName: "directory"),
    completion: .directory)
  var runtimeDirectory: FilePath?

  @Option(
    name: .long,
    help: ArgumentHelp(
      """
      Whether to register the machine with systemd-machined, for machinectl. With 'auto' the machine runs also where that fails, with \
      'yes' the daemon ends then.
      """, valueName: "auto|yes|no"),
    transform: parseTristate)
  var register = Tristate.auto

  @Flag(
    name: .long,
    help: """
      Leave QEMU in the unit that the daemon runs in. Without this systemd-machined makes a scope unit for it, unless the daemon is \
      a service's main process, --keep-running is given, or QEMU was attached to.
      """)
  var keepUnit = false

  @Flag(
    help: ArgumentHelp(
      """
      Register with the system's systemd-machined alone, or with the user's too, and where to make the runtime directory. Default: \
      --system for root, --user for others.
      """))
  var scope = RuntimeScope.own

  @Option(name: .long, help: ArgumentHelp("How many QMP sessions there may be at once.", valueName: "number"))
  var maxSessions = 1024

  @Option(name: .long, help: ArgumentHelp("How many of them one user may have.", valueName: "number"))
  var maxSessionsPerUser = 512

  @Option(
    name: .long,
    help: ArgumentHelp(
      """
      After how many seconds without a command a session is parked: it gives its monitor back, which costs QEMU time, and has one \
      again with the next command. 'never' parks none.
      """, valueName: "seconds|never"))
  var parkAfter = IdleTime.usual

  @Option(
    name: .long,
    help: ArgumentHelp(
      """
      How many monitors the sessions may have at once. Further sessions with something to say wait for one, and those that have \
      one are parked sooner.
      """, valueName: "number"))
  var maxActiveMonitors = 256

  @Option(name: .long, help: ArgumentHelp("How many monitors may be added by io.qmpvarlink.Monitors.Add.", valueName: "number"))
  var maxMonitors = 64

  @Option(
    name: .long,
    help: ArgumentHelp(
      "How many MiB of replies and events a session's client or a subscriber may leave unread before it is ended.", valueName: "MiB"))
  var unreadLimit = 16

  @Option(
    name: .long,
    help: ArgumentHelp(
      "How long QEMU may take to answer before calls fail and the machine's status is 'unresponsive'.", valueName: "seconds"))
  var responseLimit = 10

  @Option(
    name: .long,
    help: ArgumentHelp(
      """
      Who else may do what; see POLICY. Without it that is what /etc/qmp-varlink/policy says, and if there is none, the daemon's \
      user and root may do everything, and others nothing.
      """, valueName: "file"),
    completion: .file())
  var policy: FilePath?

  @Option(
    name: .long,
    help: ArgumentHelp(
      """
      Whether polkit is asked about calls that the policy does not grant. 'auto' does where root's daemon, with --system, finds the \
      system's message bus.
      """, valueName: "auto|yes|no"),
    transform: parseTristate)
  var polkit = Tristate.auto

  @Flag(name: .long, help: "Log every command of sessions with full access: its name, and its arguments without secrets.")
  var audit = false

  @Option(name: .long, help: ArgumentHelp("The least severe messages to log.", valueName: "level"))
  var logLevel: Logger.Level = .info

  func validate() throws {
    guard maxSessions >= 0, maxSessionsPerUser >= 0 else { throw ValidationError("A number of sessions must not be negative.") }
    guard maxActiveMonitors > 0 else { throw ValidationError("--max-active-monitors must be at least 1.") }
    guard maxMonitors >= 0 else { throw ValidationError("--max-monitors must not be negative.") }
    guard (1...86400).contains(responseLimit) else { throw ValidationError("--response-limit must be 1 to 86400 seconds.") }
    guard (1...65536).contains(unreadLimit) else { throw ValidationError("--unread-limit must be 1 to 65536 MiB.") }
  }
}

extension ServiceOptions {
  /// Whether polkit is asked. polkit answers others than root only about themselves, and a user's machine is the user's alone.
  var asksPolkit: Bool {
    switch polkit {
    case .yes: true
    case .no: false
    case .auto: geteuid() == 0 && scope == .system && SystemBus.isThere
    }
  }
}

/// How long a session may be idle; in seconds, with a fraction if need be, or without a limit.
struct IdleTime: ExpressibleByArgument {
  private static let longest = 86400.0
  /// Nil for ever.
  let seconds: Double?

  static let never = IdleTime(seconds: nil)
  static let usual = IdleTime(seconds: 5)

  private init(seconds: Double?) { self.seconds = seconds }

  init?(argument: String) {
    if argument == "never" {
      seconds = nil
    } else {
      guard let seconds = Double(argument), (0.01...Self.longest).contains(seconds) else { return nil }
      self.seconds = seconds
    }
  }

  var defaultValueDescription: String { seconds.map { "\(Int($0))" } ?? "never" }
  var duration: Duration? { seconds.map { .seconds($0) } }
}

extension MachineName: ExpressibleByArgument {
  /// `init(_:)` under the name that the argument parser wants.
  public init?(argument: String) { self.init(argument) }
}

extension FilePath: @retroactive ExpressibleByArgument {
  public init?(argument: String) {
    guard !argument.isEmpty else { return nil }
    self.init(argument)
  }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}
extension VirtualMachineConfiguration.Accelerator: ExpressibleByArgument {}
extension RuntimeScope: EnumerableFlag {}
