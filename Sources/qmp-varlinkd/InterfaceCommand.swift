import ArgumentParser
import Bridge
import Glibc
import Logging
import Machine
import SystemdEvent

/// `qmp-varlinkd interface`
struct InterfaceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "interface",
    abstract: "Print the definition of io.qmpvarlink.QMP as it is for a QEMU program.",
    discussion: "Runs the program for a moment, without a machine.")

  @Option(name: .long, help: ArgumentHelp("The QEMU program.", valueName: "program"))
  var qemu = "qemu-system-x86_64"

  func run() throws {
    // The loop gets the program's end by pidfd, and wants this blocked for that.
    var blocked = sigset_t()
    sigemptyset(&blocked)
    sigaddset(&blocked, SIGCHLD)
    sigprocmask(SIG_BLOCK, &blocked, nil)
    guard let name = MachineName("interface") else { throw ExitCode.failure }
    var configuration = VirtualMachineConfiguration(name: name)
    configuration.qemu = qemu
    configuration.accelerator = .tcg
    configuration.memory = "64M"
    configuration.qemuArguments = ["-machine", "none"]
    let logger = makeLogger(level: .warning, machine: name)
    startTask { [configuration] in EventLoop.shared.exit(await Self.printDefinition(configuration, logger)) }
    let status = try EventLoop.shared.run()
    if status != 0 { throw ExitCode(status) }
  }

  @EventLoopActor
  private static func printDefinition(_ configuration: VirtualMachineConfiguration, _ logger: Logger) async -> CInt {
    do {
      let machine = try await Machine.start(configuration, logger: logger)
      let definition = try await QMPService.definition(for: machine)
      try? await machine.terminate()
      _ = await machine.processEnd()
      print(definition, terminator: "")
      return 0
    } catch {
      logger.error("\(error)")
      return 1
    }
  }
}
