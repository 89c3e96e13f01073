public import ArgumentParser
public import Control
import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON

/// How results are shown.
struct OutputOptions: ParsableArguments {
  @Flag(name: [.customShort("j"), .long], help: "Print JSON: for programs, and without colours.")
  var json = false

  /// Prints a value as one line of JSON.
  @EventLoopActor func write(_ value: JSONVariant) throws { try StandardOutput.write("\(value.text)\n") }
}

/// Whether tables have more than their rows.
struct LegendOption: ParsableArguments {
  @Flag(name: .long, help: "Do not print titles above the columns, nor the count below.")
  var noLegend = false

  /// Prints a table, and how many things are in it.
  func write(_ table: Table, of thing: String) throws { try StandardOutput.write(text(of: table, of: thing)) }

  private func text(of table: Table, of thing: String) -> String {
    if noLegend { return table.text(.standard(), hasLegend: false) }
    guard !table.isEmpty else { return "No \(thing)s.\n" }
    return "\(table.text(.standard()))\n\(table.count) \(thing)\(table.count == 1 ? "" : "s") listed.\n"
  }
}

/// How long to wait.
struct TimeoutOption: ParsableArguments {
  @Option(name: .long, help: ArgumentHelp("How long an answer may take.", valueName: "seconds"))
  var timeout = 15

  var limit: Duration { .seconds(timeout) }

  func validate() throws {
    guard (1...86400).contains(timeout) else { throw ValidationError("--timeout must be 1 to 86400 seconds.") }
  }
}

/// Which machine.
struct MachineOptions: ParsableArguments {
  @Argument(
    help: ArgumentHelp("The machine's name, or the path of its control socket.", valueName: "name"),
    completion: .custom { _, _, _ in Completion.machines() })
  var name: String

  @Option(
    name: [.customShort("H"), .long],
    help: ArgumentHelp("The host that the machine is on, reached by SSH.", valueName: "user@host"))
  var host: SSHHost?

  @OptionGroup var time: TimeoutOption

  @Flag(name: .long, help: "Do not have polkit ask for a password. It does only if standard input is a terminal.")
  var noAskPassword = false

  /// Connects to it.
  ///
  /// - Throws: ``ControlError``.
  @EventLoopActor func connect() async throws(ControlError) -> MachineConnection {
    try await .connect(to: name, on: host, within: time.limit, mayAuthenticate: !noAskPassword && isatty(0) == 1)
  }
}

/// Which hosts.
struct HostsOption: ParsableArguments {
  /// The most that are asked at once: each takes a process.
  private static let mostHosts = 64

  @Option(
    name: [.customShort("H"), .customLong("host")], parsing: .singleValue,
    help: ArgumentHelp("Another host, reached by SSH; several are asked at once.", valueName: "user@host"))
  var hosts: [SSHHost] = []

  /// Each of them alone; nothing, once, for this host.
  var each: [[SSHHost]] { hosts.isEmpty ? [[]] : hosts.map { [$0] } }

  func validate() throws {
    guard hosts.count <= Self.mostHosts else { throw ValidationError("At most \(Self.mostHosts) hosts can be asked at once.") }
  }
}

/// Which machines, of which hosts.
struct MachinesOptions: ParsableArguments {
  @Argument(
    help: ArgumentHelp("The machines' names, or the paths of their control sockets; without any, all machines.", valueName: "name"),
    completion: .custom { _, _, _ in Completion.machines() })
  var names: [String] = []

  @OptionGroup var hosts: HostsOption
  @OptionGroup var time: TimeoutOption

  /// Whether more than one machine may be meant.
  var mayBeSeveral: Bool { names.count != 1 || hosts.hosts.count > 1 }

  /// Finds them.
  @EventLoopActor func find() async -> [MachineTarget] {
    await MachineTarget.find(names, on: hosts.hosts, within: time.limit)
  }
}

extension SSHHost: ExpressibleByArgument {
  /// `init(_:)` under the name that the argument parser wants.
  public init?(argument: String) { self.init(argument) }
}

extension FilePath {
  /// A path that means the same in another process's current folder.
  static func absolute(_ path: String) throws -> FilePath {
    let path = FilePath(path)
    if path.isAbsolute { return path }
    guard let current = getcwd(nil, 0) else { throw SystemdError.last("the current folder") }
    defer { free(current) }
    return FilePath(String(cString: current)).appending(path.components)
  }
}
