import ArgumentParser
import Control
import Glibc
import SystemdEvent
import SystemdJSON

/// `qmpctl sessions`
struct SessionsCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "sessions",
    abstract: "List a machine's QMP sessions: whose they are, and what they do.",
    discussion: """
      BYTES are those from the client and those to it, PENDING the commands that QEMU has not answered yet. A session is active, \
      draining (its client has gone, QEMU is still at its commands), stuck (the same for long), or parked (idle, without a monitor).
      """)

  @OptionGroup var machine: MachineOptions
  @OptionGroup var output: OutputOptions
  @OptionGroup var legend: LegendOption

  func execute() async throws -> CInt {
    let sessions = try await machine.connect().call("io.qmpvarlink.Sessions.List")["sessions"] ?? .array([])
    if output.json { try output.write(sessions) } else { try legend.write(table(of: sessions.elements ?? []), of: "session") }
    return 0
  }

  @EventLoopActor private func table(of sessions: [JSONVariant]) -> Table {
    var table = Table([
      "SESSION": .left, "STATE": .left, "ACCESS": .left, "MODE": .left, "USER": .left, "PID": .right, "COMMAND": .left, "BYTES": .right,
      "PENDING": .right, "IDLE": .right, "SINCE": .left,
    ])
    for session in sessions {
      let peer = session["peer"]
      let (bytesIn, bytesOut) = (session["bytesIn"]?.integer ?? 0, session["bytesOut"]?.integer ?? 0)
      let state = session["state"]?.string
      table.add([
        Table.Cell(session["id"]?.string), Table.Cell(state, Self.emphasis(state)), Table.Cell(session["access"]?.string),
        Table.Cell(session["mode"]?.string), Table.Cell(user(peer?["uid"])), Table.Cell(peer?["pid"]?.integer.map { "\($0)" }),
        Table.Cell(peer?["command"]?.string), Table.Cell("\(bytesIn)/\(bytesOut)"),
        Table.Cell(session["commandsInFlight"]?.integer.map { "\($0)" }),
        Table.Cell(session["idleUSec"]?.integer.map { Duration.seconds(max(0, $0) / 1_000_000).inWords }),
        Table.Cell(session["sinceUSec"]?.integer.flatMap(UInt64.init(exactly:)).map { WallTime(microseconds: $0).dateAndTime }),
      ])
    }
    return table
  }

  /// A user's name where it is known: on the machine's host.
  @EventLoopActor private func user(_ id: JSONVariant?) -> String? {
    guard let id = id?.integer else { return nil }
    guard machine.host == nil, let id = uid_t(exactly: id), let entry = getpwuid(id) else { return "\(id)" }
    return String(cString: entry.pointee.pw_name)
  }

  static func emphasis(_ state: String?) -> Emphasis {
    switch state {
    case "active": .good
    case "stuck": .bad
    case "parked", "waiting": .faint
    default: .doubtful
    }
  }
}
