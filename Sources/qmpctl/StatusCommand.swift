import ArgumentParser
import Control
import SystemPackage
import SystemdEvent
import SystemdJSON

/// `qmpctl status`
struct StatusCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Show what a machine is doing.")

  @OptionGroup var machine: MachineOptions
  @OptionGroup var output: OutputOptions

  func execute() async throws -> CInt {
    let connection = try await machine.connect()
    var status = MachineStatus(address: connection.address)
    try await status.ask(connection)
    let service = try await connection.call("org.varlink.service.GetInfo")
    if output.json {
      try output.write(status.json)
    } else {
      try StandardOutput.write(text(status, service))
    }
    return 0
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
