import ArgumentParser
import Control
import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON

/// `qmpctl proxy`
struct ProxyCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "proxy",
    abstract: "Make a UNIX socket that speaks QMP, for programs that want the path of one.",
    discussion: """
      Each connection to the socket is a QMP session of its own, with a greeting and a negotiation of its own. The socket is for this \
      user alone, and is removed at the end. In COMMAND, {} stands for its path:

        qmpctl proxy NAME -- qmp-shell {}

      Without COMMAND the path is printed, and served until a signal comes. The exit status is then 0, else that of COMMAND: 128+N if \
      signal N ended it, 127 if there is no such program, 126 if it cannot be run.
      """)
  // Those of the terminal reach the command too, which decides what follows.
  static let handledSignals = [SIGINT, SIGQUIT, SIGTERM, SIGHUP]

  @OptionGroup var machine: MachineOptions

  @Option(
    name: .long,
    help: ArgumentHelp(
      "Where to make the socket. Default: a new folder in $XDG_RUNTIME_DIR or /tmp, that only this user can look into.", valueName: "path"),
    completion: .file())
  var listen: String?

  @OptionGroup var session: SessionOptions

  @Flag(name: [.customShort("j"), .long], help: "Without COMMAND, print the path as JSON.")
  var json = false

  @Argument(
    parsing: .postTerminator, help: ArgumentHelp("What to run, behind '--'; {} stands for the socket's path.", valueName: "command"),
    completion: .default)
  var command: [String] = []

  func validate() throws {
    guard command.isEmpty || listen != nil || command.dropFirst().contains(where: { $0.contains("{}") }) else {
      throw ValidationError("COMMAND does not say where the socket's path goes: put {} there, or give --listen.")
    }
    guard command.isEmpty || !json else { throw ValidationError("--json is for a proxy without COMMAND.") }
  }

  func execute() async throws -> CInt {
    // A machine that cannot be reached is better told now than to the command.
    _ = try await machine.connect().call("org.varlink.service.GetInfo")
    let proxy = SessionProxy(
      try PrivateSocket(at: listen.map { try FilePath.absolute($0) }), access: session.access?.rawValue, mode: session.mode?.rawValue,
      connect: { [machine] () throws(ControlError) in try await machine.connect() }, onFailure: complain)
    defer { proxy.close() }
    startTask { await proxy.run() }
    return command.isEmpty ? try await serve(proxy) : try await run(for: proxy)
  }

  @EventLoopActor private func serve(_ proxy: SessionProxy) async throws -> CInt {
    let over = Promise<Void>()
    let signals = try Self.handledSignals.map { signal in try EventSource.signal(signal) { over.fulfil() } }
    try StandardOutput.write(json ? JSONVariant.object([("path", .string(proxy.path.string))]).text + "\n" : "\(proxy.path)\n")
    await over.value
    withExtendedLifetime(signals) {}
    return 0
  }

  @EventLoopActor private func run(for proxy: SessionProxy) async throws -> CInt {
    let words = command.map { Self.replaced($0, with: proxy.path.string) }
    let program: ChildProgram
    do throws(SystemdError) {
      program = try ChildProgram(words[0], Array(words.dropFirst()))
    } catch {
      complain(ControlError(.failed, "cannot run \(words[0]): \(error.errno)"))
      return error.errno == .noSuchFileOrDirectory ? 127 : 126
    }
    let signals = try Self.handledSignals.map { signal in
      try EventSource.signal(signal) { if signal == SIGTERM || signal == SIGHUP { program.signal(signal) } }
    }
    defer { withExtendedLifetime(signals) {} }
    return switch await program.ended.value {
    case .exited(let status): status
    case .signaled(let signal): 128 + signal
    // Of a child it is always known.
    case .unknown: 1
    }
  }

  /// A word with the path in each place of `{}`.
  static func replaced(_ word: String, with path: String) -> String {
    var rest = word[...]
    var replaced = ""
    while let place = rest.firstRange(of: "{}") {
      replaced += rest[..<place.lowerBound] + path
      rest = rest[place.upperBound...]
    }
    return replaced + rest
  }
}
