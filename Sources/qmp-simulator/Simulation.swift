import ArgumentParser
import Foundation
import Glibc
import Simulator
import SystemPackage
import SystemdEvent

/// One run of the simulator, from its options to its exit status.
struct Simulation {
  private static let failure: CInt = 1
  /// A shell's way to tell SIGABRT, by which QEMU dies.
  private static let died: CInt = 134
  /// What ends it. A terminal that closes is among it: sockets are not left behind.
  private static let stopSignals = [SIGTERM, SIGINT, SIGHUP]

  private let options: QMPSimulator
  private let configuration: SimulatedQEMU.Configuration

  init(_ options: QMPSimulator) throws {
    self.options = options
    var configuration = SimulatedQEMU.Configuration()
    configuration.dialect = options.dialect
    configuration.version = options.versionOf
    configuration.name = options.name
    configuration.startsInPreconfig = options.preconfig
    configuration.seed = options.seed
    for fault in options.fault {
      switch fault {
      case .planned(let fault): configuration.faults.append(fault)
      case .random(let faults): configuration.randomFaults = faults
      }
    }
    if let path = options.script { configuration.script = try Self.script(path) }
    // Nobody can ask for it.
    configuration.longestLog = 1
    self.configuration = configuration
  }

  private static func script(_ path: String) throws -> Script {
    do {
      return try Script(parsing: String(contentsOfFile: path, encoding: .utf8))
    } catch let error as Script.Invalid {
      complain("\(path): \(error)")
    } catch {
      complain("cannot read \(path)")
    }
    throw ExitCode(failure)
  }

  /// Serves until it is over.
  func run() throws -> CInt {
    // Before anything can make a thread: the loop gets these by signalfd.
    var blocked = sigset_t()
    sigemptyset(&blocked)
    for signal in Self.stopSignals { sigaddset(&blocked, signal) }
    sigprocmask(SIG_BLOCK, &blocked, nil)
    signal(SIGPIPE, SIG_IGN)
    startTask { EventLoop.shared.exit(await serve()) }
    return try EventLoop.shared.run()
  }

  @EventLoopActor
  private func serve() async -> CInt {
    let qemu = SimulatedQEMU(configuration)
    var signals: [EventSource] = []
    do {
      for signal in Self.stopSignals {
        signals.append(try EventSource.signal(signal) { qemu.shutDown() })
      }
      try addMonitors(to: qemu)
    } catch {
      Self.complain("\(error)")
      return Self.failure
    }
    if options.log {
      qemu.onCommand = { Self.write("\($0.number) \($0.monitor) \($0.text)") }
    }
    ServiceManager.ready()
    let end = await qemu.ended.value
    ServiceManager.stopping()
    withExtendedLifetime(signals) {}
    return end == .died ? Self.died : 0
  }

  @EventLoopActor
  private func addMonitors(to qemu: SimulatedQEMU) throws {
    var count = 0
    if let path = options.listen {
      try qemu.addMonitor("compat_monitor\(count)", listeningAt: FilePath(path), isPretty: options.pretty)
      count += 1
    }
    if let number = options.fd {
      guard fcntl(number, F_GETFD) >= 0 else { throw SystemdError("--fd \(number)", .badFileDescriptor) }
      let socket = OwnedDescriptor(owning: number)
      guard socket.isSocket else { throw SystemdError("--fd \(number)", .notSocket) }
      qemu.addMonitor("compat_monitor\(count)", connected: socket, isPretty: options.pretty)
    }
    for monitor in options.monitor { try qemu.addMonitor(monitor.id, listeningAt: monitor.path, isPretty: options.pretty) }
    for id in options.hmp { qemu.addHumanMonitor(id) }
  }

  private static func complain(_ text: String) { write("qmp-simulator: \(text)") }

  private static func write(_ line: String) { _ = try? FileDescriptor.standardError.writeAll("\(line)\n".utf8) }
}
