import Glibc
public import Logging
import QMP
import SystemPackage
import SystemdEvent
public import SystemdJSON

// A machine that goes on with the next run of the daemon.
extension Machine {
  /// How long what is under way may take to be over, before a handover is given up.
  private static let settleLimit = Duration.seconds(5)

  /// Brings what this run has under way in QEMU to an end, as far as it is not a session's. What is begun after that is for the caller to
  /// prevent.
  ///
  /// - Throws: ``Handover/Failure`` if QEMU does not answer, before anything is changed: what does not answer may be the control monitor
  ///   alone, whose place the spare one takes.
  public func settle() async throws(Handover.Failure) {
    try await answers()
    await endOwnWork(within: Self.settleLimit)
  }

  /// Waits until no command is under way.
  ///
  /// - Throws: ``Handover/Failure`` if there is no such moment.
  public func rest() async throws(Handover.Failure) {
    try await answers()
    guard control.unfinished != nil, !control.hasSpare else { throw Handover.Failure("QEMU has commands to execute") }
  }

  /// Waits behind all commands that were written before.
  ///
  /// - Throws: ``Handover/Failure`` if that takes too long.
  public func answers() async throws(Handover.Failure) {
    let answered = Promise<Bool>()
    startTask { answered.fulfil((try? await self.control.execute("query-name")) != nil) }
    guard await answered.value(within: Self.settleLimit) == true else { throw Handover.Failure("QEMU does not answer") }
  }

  /// The machine as it is, for ``goOn(with:_:logger:)``. This one must not be used any more then.
  ///
  /// - Throws: ``Handover/Failure`` while commands are under way; see ``rest()``.
  public func carried(_ handover: Handover) throws -> JSONVariant {
    guard let unfinished = control.unfinished, !storage.isBusy else { throw Handover.Failure("QEMU has commands to execute") }
    return .object([
      "name": .string("\(name)"),
      "control": try handover.add(control.descriptorNumber), "controlID": control.id.map { .string($0) },
      "greeting": .bytes(control.greetingText), "unfinished": .bytes(unfinished),
      "controlSocket": monitors.controlSocket.map { .string($0.string) }, "numbering": .integer(monitors.counter),
      "process": try process?.carried(handover), "outlives": .boolean(outlivesDaemon),
      "programs": .array(
        try programs.compactMap { program in
          try program.process.carried(handover).map {
            .object(["name": .string(program.name), "option": .string(program.option), "process": $0])
          }
        }), "drives": .boolean(storage.hasDrives),
      "vsock": vsockAddress.map { .integer($0) }, "root": rootDirectory.map { .string($0.string) },
      "spareSockets": .array(spareSockets.map { .string($0.string) }),
    ])
  }

  /// Goes on with a machine that the run of the daemon before had. What QEMU says is read from ``goOn()`` on.
  ///
  /// - Throws: ``Handover/Failure`` for what ``carried(_:)`` did not write, and when a descriptor was lost on the way.
  public static func goOn(
    with carried: JSONVariant, _ handover: Handover, responseLimit: Duration, logger: Logger
  ) throws -> Machine {
    guard let name = carried["name"]?.string.flatMap({ MachineName($0) }), let greetingText = carried["greeting"]?.bytes,
      let unfinished = carried["unfinished"]?.bytes, let numbering = carried["numbering"]?.integer
    else { throw Handover.Failure("a machine that cannot be read") }
    guard let socket = handover.take(carried["control"]) else { throw Handover.Failure("the control monitor was lost on the way") }
    let client = try QMPClient(socket, greeted: greetingText, unfinished: unfinished)
    guard let greeting = client.greeting else { throw Handover.Failure("a greeting that cannot be read") }
    let process = try carried["process"].map { carried in
      try ChildProcess(carried: carried, handover) { line in logger.warning("\(line)", metadata: ["source": "qemu"]) }
    }
    let programs = try (carried["programs"]?.elements ?? []).map { carried in
      guard let name = carried["name"]?.string, let option = carried["option"]?.string, let process = carried["process"] else {
        throw Handover.Failure("a program of a device that cannot be read")
      }
      return DeviceProgram(
        name: name, option: option,
        process: try ChildProcess(carried: process, handover, onLine: DeviceProgram.log(of: name, logger)))
    }
    let machine = Machine(
      name: name, client: client, clientID: carried["controlID"]?.string,
      clientSocket: carried["controlSocket"]?.string.map { FilePath($0) },
      responseLimit: responseLimit, greeting: greeting, process: process, programs: programs, logger: logger)
    machine.monitors.counter = Int(numbering)
    machine.outlivesDaemon = carried["outlives"]?.boolean == true
    machine.vsockAddress = carried["vsock"]?.integer.flatMap { UInt32(exactly: $0) }
    machine.rootDirectory = carried["root"]?.string.map { FilePath($0) }
    machine.hasUnknownDrives = carried["drives"]?.boolean == true
    machine.spareSockets = (carried["spareSockets"]?.elements ?? []).compactMap { $0.string.map { FilePath($0) } }
    return machine
  }

  /// Reads what QEMU says, from now on: everybody is there who is to hear of it. And looks for what the run before had, and has not told of.
  public func goOn() {
    control.goOn()
    startTask {
      do {
        // Of a drive that the guest is about to let go of, the rest is to be removed.
        if self.hasUnknownDrives { try await self.storage.takeInventory() }
        try await self.monitors.removeStrays()
      } catch {
        self.logger.warning("could not look for what the daemon before has left: \(error)")
      }
    }
  }
}
