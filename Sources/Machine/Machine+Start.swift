import Glibc
public import Logging
import QMP
import SystemPackage
public import SystemdEvent
import SystemdJSON

// From a configuration to a machine that runs.
extension Machine {
  /// Starts QEMU and waits until it executes commands, which is when the machine is set up.
  ///
  /// With devices to attach, QEMU is started stopped, and the guest runs once all of them are there. A guest never runs without.
  ///
  /// - Parameters:
  ///   - responseLimit: how long a command may take before the machine counts as unresponsive.
  ///   - cancelled: fulfilled by somebody who does not want to wait any more; QEMU is ended then.
  /// - Throws: ``MachineError/startFailed(_:lastWords:)`` with QEMU's own words if it ended instead; ``MachineError/option(_:)`` for
  ///   what cannot be had. Nothing is left running then.
  public static func start(
    _ configuration: VirtualMachineConfiguration, responseLimit: Duration = .seconds(10), logger: Logger,
    cancelled: Promise<Void> = Promise()
  ) async throws(MachineError) -> Machine {
    let devices = try await StartDevices.prepare(configuration, logger: logger)
    do throws(MachineError) {
      var offer = Offer(endsWithParent: true, isSandboxed: configuration.isSandboxed)
      while true {
        do throws(MachineError) {
          return try await start(configuration, devices, responseLimit, logger, cancelled, offer)
        } catch {
          guard case .startFailed(_, let lastWords) = error, cancelled.result == nil else { throw error }
          if offer.endsWithParent, QEMUCommandLine.refusesEndWithParent(lastWords) {
            logger.notice("this QEMU cannot be made to end with the daemon: should the daemon be killed, it goes on")
            offer.endsWithParent = false
          } else if offer.isSandboxed, configuration.sandbox == .auto, QEMUSandbox.isRefused(lastWords) {
            logger.notice("this QEMU has no sandbox: it runs without")
            offer.isSandboxed = false
          } else {
            throw error
          }
        }
      }
    } catch {
      let explained = await devices.explain(error)
      await devices.discard()
      throw explained
    }
  }

  /// What QEMU is asked for that not every QEMU can.
  private struct Offer {
    var endsWithParent: Bool
    var isSandboxed: Bool
  }

  private static func start(
    _ configuration: VirtualMachineConfiguration, _ devices: StartDevices, _ responseLimit: Duration, _ logger: Logger,
    _ cancelled: Promise<Void>, _ offer: Offer
  ) async throws(MachineError) -> Machine {
    let process: ChildProcess
    let control: QMPClient
    do throws(SystemdError) {
      let useKVM = try choosesKVM(configuration.accelerator, logger: logger)
      let commandLine = QEMUCommandLine(
        configuration, useKVM: useKVM, devices: devices.commandLine, endsWithParent: offer.endsWithParent, isSandboxed: offer.isSandboxed)
      let words = (configuration.user?.launcher ?? []) + [configuration.qemu] + commandLine.arguments
      if let user = configuration.user { try devices.commandLine.give(to: user) }
      let pair = try SocketPair()
      let theirs = try pair.theirs.duplicate()
      control = try QMPClient(pair.takeOurs())
      process = try ChildProcess(
        words[0], Array(words.dropFirst()), descriptors: [theirs.raw] + devices.commandLine.inherited.map { $0.descriptor.raw },
        usesTerminal: configuration.console == .terminal
      ) { line in logger.warning("\(line)", metadata: ["source": "qemu"]) }
    } catch {
      throw .system(error)
    }
    let canceller = cancelled.whenFulfilled { process.signal(SIGKILL) }
    defer { cancelled.forget(canceller) }
    do throws(MachineError) {
      let greeting = try await bringUp(control, devices, staysStopped: configuration.qemuArguments.contains { $0 == "-S" || $0 == "--S" })
      logger.info("QEMU \(greeting.version) runs", metadata: ["pid": "\(process.id)"])
      let machine = Machine(
        name: configuration.name, client: control, clientID: QEMUCommandLine.controlChardev, clientSocket: nil,
        responseLimit: responseLimit, greeting: greeting, process: process, programs: devices.programs, logger: logger)
      machine.outlivesDaemon = configuration.socketForOthers != nil || !offer.endsWithParent
      machine.vsockAddress = devices.vsockAddress
      machine.rootDirectory = configuration.directory
      return machine
    } catch {
      guard case .qmp(.disconnected) = error else {
        process.signal(SIGKILL)
        _ = await process.ended.value
        throw error
      }
      throw .startFailed(await process.ended.value, lastWords: process.lastWords)
    }
  }

  /// Negotiates, attaches the devices, and has the guest run.
  private static func bringUp(_ control: QMPClient, _ devices: StartDevices, staysStopped: Bool) async throws(MachineError) -> Greeting {
    // The firmware is told the boot order at a reset, of which the last was before the devices came. It happens when QEMU has
    // answered, so what is written next comes after it.
    let reset = devices.hasBootOrder ? [DeviceAttachment(option: "--image", commands: devices.resetCommands)] : []
    let attachments = devices.attachments.isEmpty ? [] : devices.attachments + reset
    // The greeting comes before the machine is set up; the reply to any command comes after.
    let commands = attachments.isEmpty ? [QMPCommand("query-status")] : attachments.commands
    let started: (greeting: Greeting, results: [Result<JSONVariant, QMPError>])
    do { started = try await control.negotiate(followedBy: commands) } catch { throw .qmp(error) }
    guard !attachments.isEmpty else {
      if let failure = started.results.firstFailure { throw .qmp(failure) }
      return started.greeting
    }
    try attachments.check(started.results)
    // This is no part of what goes out in one write: the guest must not run if something is missing.
    if !staysStopped {
      do { try await control.execute("cont") } catch { throw .qmp(error) }
    }
    return started.greeting
  }

  private static func choosesKVM(_ accelerator: VirtualMachineConfiguration.Accelerator, logger: Logger) throws(SystemdError) -> Bool {
    switch accelerator {
    case .kvm: return true
    case .tcg: return false
    case .auto:
      guard let obstacle = KVM.obstacle() else { return true }
      logger.notice("no KVM (\(obstacle)): the guest is emulated, and slower for it")
      return false
    }
  }
}

extension VirtualMachineConfiguration {
  /// Whether QEMU is to have a sandbox of our making.
  fileprivate var isSandboxed: Bool { sandbox != .no && !QEMUSandbox.isSaid(in: qemuArguments) }
}
