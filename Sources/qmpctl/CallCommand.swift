import ArgumentParser
import Control
import Glibc
import SystemdEvent
import SystemdJSON

/// `qmpctl call`
struct CallCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "call",
    abstract: "Call any Varlink method of a machine's service, and print its reply as JSON.",
    discussion: """
      QEMU's own commands are methods of io.qmpvarlink.QMP:

        qmpctl call NAME io.qmpvarlink.QMP.QueryStatus
        qmpctl call NAME io.qmpvarlink.QMP.Execute '{"command": "query-status"}'
      """)

  @OptionGroup var machine: MachineOptions

  @Argument(
    help: ArgumentHelp("The method, with its interface.", valueName: "method"),
    completion: .custom { words, _, _ in Completion.methods(words, of: ["call"]) })
  var method: String

  @Argument(help: ArgumentHelp("A JSON object. Default: an empty one.", valueName: "parameters"))
  var parameters: String?

  @Flag(name: .long, help: "Ask for more than one reply: each is a line, until there is none any more.")
  var more = false

  static let handledSignals = [SIGINT, SIGTERM, SIGHUP]

  func validate() throws {
    guard method.contains(".") else { throw ValidationError("'\(method)' has no interface: METHOD is INTERFACE.NAME.") }
  }

  func execute() async throws -> CInt {
    var values: JSONVariant?
    if let parameters {
      do { values = try JSONVariant(parsing: parameters) } catch { throw ControlError(.failed, "PARAMETERS: \(error)") }
      guard values?.isObject == true else { throw ControlError(.failed, "PARAMETERS is no JSON object") }
    }
    let signals = try Self.handledSignals.map { signal in try EventSource.signal(signal) { EventLoop.shared.exit(128 + signal) } }
    let reader = more ? StandardOutput.whenClosed { EventLoop.shared.exit(0) } : nil
    defer { withExtendedLifetime((signals, reader)) {} }
    let connection = try await machine.connect()
    guard more else {
      try StandardOutput.write("\(try await connection.call(method, values).text)\n")
      return 0
    }
    let last = try await connection.observe(method, values) { reply in
      if (try? StandardOutput.write("\(reply.text)\n")) == nil { EventLoop.shared.exit(0) }
    }
    try StandardOutput.write("\(last.text)\n")
    return 0
  }
}
