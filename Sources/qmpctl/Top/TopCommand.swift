import ArgumentParser
import Control
import Glibc
import SystemdEvent
import SystemdJSON
import Terminal

/// `qmpctl top`
struct TopCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "top",
    abstract: "Watch machines and their QMP sessions.",
    discussion: """
      LATENCY is how long the machine's service took to answer, PENDING how many commands QEMU has not answered yet, IN and OUT what came \
      from clients and went to them. At a terminal this fills the screen: the arrows scroll, the space bar asks at once, q quits. \
      Otherwise one round is printed.
      """)

  @OptionGroup var machines: MachinesOptions
  @OptionGroup var output: OutputOptions

  @Option(name: [.customShort("d"), .long], help: ArgumentHelp("How long to wait between two rounds.", valueName: "seconds"))
  var interval = 2.0

  @Option(
    name: [.customShort("n"), .long],
    help: ArgumentHelp("How many rounds; 0 for no end. Default: no end at a terminal, else 1.", valueName: "count"))
  var iterations: Int?

  @Flag(name: .shortAndLong, help: "Print the rounds below each other, also at a terminal.")
  var batch = false

  static var handledSignals: [CInt] { [SIGWINCH] }

  func validate() throws {
    guard (0.1...86400).contains(interval) else { throw ValidationError("--interval must be 0.1 to 86400 seconds.") }
    guard iterations ?? 0 >= 0 else { throw ValidationError("--iterations must not be negative.") }
  }

  func execute() async throws -> CInt {
    let interval = Duration.milliseconds(Int64(self.interval * 1000))
    let fleet = WatchedFleet(machines.names, on: machines.hosts.hosts, within: machines.time.limit)
    guard batch || output.json || !RawTerminal.isUsable() else {
      return try await TopScreen(fleet, every: interval, rounds: iterations ?? 0).run()
    }
    let end: EventSource?
    let isClosed = Promise<Void>()
    end = StandardOutput.whenClosed { isClosed.fulfil() }
    defer { withExtendedLifetime(end) {} }
    var round = 0
    while true {
      await fleet.ask()
      if output.json {
        try output.write(fleet.json)
      } else {
        let style = Looks(areOn: Style.standard().hasColors)
        let lines = TopView(fleet).lines(looks: style, width: nil)
        try StandardOutput.write((round > 0 ? "\n" : "") + lines.map { $0 + "\n" }.joined())
      }
      for problem in fleet.problems { complain(problem) }
      round += 1
      if round == iterations ?? 1 { return fleet.problems.isEmpty ? 0 : ControlError.Kind.unreachable.rawValue }
      if await isClosed.value(within: interval) != nil { return 0 }
    }
  }
}
