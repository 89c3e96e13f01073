import ArgumentParser
import Control
import SystemPackage
import SystemdEvent
import SystemdJSON

/// `qmpctl status`
struct StatusCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Show what machines are doing.",
    discussion: """
      Machines are asked all at once, and shown in their order. One that cannot be asked is told on standard error, and makes the exit \
      status 69. With --json there is a line for each machine.
      """)

  @OptionGroup var machines: MachinesOptions
  @OptionGroup var output: OutputOptions

  private struct Answer: Sendable {
    let target: MachineTarget
    let result: Result<(status: MachineStatus, service: JSONVariant), ControlError>
  }

  func execute() async throws -> CInt {
    let targets = await machines.find()
    let limit = machines.time.limit
    let answers = await concurrently(targets) { target in
      do throws(ControlError) {
        return Answer(target: target, result: .success(try await Self.ask(target.address.get(), within: limit)))
      } catch {
        return Answer(target: target, result: .failure(error))
      }
    }
    if targets.isEmpty, !output.json { try StandardOutput.write("No machines.\n") }
    var problems: [ControlError] = []
    var isFirst = true
    for answer in answers {
      switch answer.result {
      case .success(let (status, service)):
        if output.json { try output.write(status.json) } else { try StandardOutput.write((isFirst ? "" : "\n") + text(status, service)) }
        isFirst = false
      case .failure(let error):
        problems.append(error)
        complain(error)
        let target = answer.target
        if output.json, machines.mayBeSeveral {
          try output.write(
            .object([
              "name": target.name.map { .string($0) }, "host": target.host.map { .string($0.name) }, "error": .string(error.message),
            ]))
        }
      }
    }
    return problems.map(\.kind.rawValue).max() ?? 0
  }

  @EventLoopActor private static func ask(
    _ address: MachineAddress, within limit: Duration
  ) async throws(ControlError) -> (MachineStatus, JSONVariant) {
    let connection = try MachineConnection(to: address, within: limit)
    var status = MachineStatus(address: address)
    try await status.ask(connection)
    return (status, try await connection.call("org.varlink.service.GetInfo"))
  }

  @EventLoopActor private func text(_ status: MachineStatus, _ service: JSONVariant) -> String {
    let style = Style.standard()
    let state = StateWord(status)
    let program = "\(service["product"]?.string ?? "?") \(service["version"]?.string ?? "")"
    var lines: [(String, String)] = [
      ("State", style(state.word ?? "-", state.emphasis)),
      ("Service", style(status.process.map { "\(program), process \($0.id)" } ?? program)),
    ]
    if let since = status.process?.since { lines.append(("Since", "\(since.dateAndTime); \(since.age.inWords) ago")) }
    lines.append(("Sessions", status.sessions.map { "\($0)" } ?? "-"))
    if let host = status.address.host { lines.append(("Host", style(host.name))) }
    lines.append(("Socket", style(status.address.socket.string)))
    let width = lines.lazy.map(\.0.count).max() ?? 0
    return "\(style("●", state.emphasis)) \(style(status.address.name))\n"
      + lines.map { String(repeating: " ", count: width + 2 - $0.0.count) + "\($0.0): \($0.1)\n" }.joined()
  }
}
