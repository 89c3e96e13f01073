import ArgumentParser
import Control
import SystemPackage
import SystemdEvent
import SystemdJSON

/// `qmpctl list`
struct ListCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "List machines: what they are doing, who serves them and since when.",
    discussion: """
      Each machine is asked, all at once; one that does not answer in time is listed as such. PID is the process of qmp-varlinkd. \
      Hosts that cannot be reached are told on standard error, and make the exit status 69.
      """)

  @OptionGroup var hosts: HostsOption
  @OptionGroup var time: TimeoutOption
  @OptionGroup var output: OutputOptions

  @Flag(name: .long, help: "Do not ask the machines: only what there is, quickly.")
  var noStatus = false

  @OptionGroup var legend: LegendOption

  func execute() async throws -> CInt {
    let answers = await HostMachines.ask(hosts.hosts, asksMachines: !noStatus, within: time.limit)
    let machines = answers.flatMap(\.machines)
    if output.json {
      let failures = answers.compactMap { answer in
        answer.problem.map { JSONVariant.object(["host": answer.host.map { .string($0.name) }, "error": .string($0.message)]) }
      }
      try output.write(.array(machines.map(\.json) + failures))
    } else {
      try legend.write(table(of: machines), of: "machine")
    }
    let problems = answers.compactMap(\.problem)
    for problem in problems { complain(problem) }
    return problems.isEmpty ? 0 : ControlError.Kind.unreachable.rawValue
  }

  @EventLoopActor private func table(of machines: [MachineStatus]) -> Table {
    let hasHosts = !hosts.hosts.isEmpty
    var table =
      hasHosts
      ? Table(["HOST": .left, "NAME": .left, "STATE": .left, "SESSIONS": .right, "PID": .right, "UPTIME": .left])
      : Table(["NAME": .left, "STATE": .left, "SESSIONS": .right, "PID": .right, "UPTIME": .left, "SOCKET": .left])
    for machine in machines {
      let process = machine.process
      let common = [
        Table.Cell(machine.address.name), StateWord(machine).cell, Table.Cell(machine.sessions.map { "\($0)" }),
        Table.Cell(process.map { "\($0.id)" }), Table.Cell(process?.since?.age.inWords),
      ]
      if let host = machine.address.host {
        table.add([Table.Cell(host.name)] + common)
      } else {
        table.add(common + [Table.Cell(machine.address.socket.string)])
      }
    }
    return table
  }
}
