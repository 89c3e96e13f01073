import QEMUJSON
import SystemdEvent

/// QEMU's one dispatcher: it executes in-band commands one at a time, over all monitors, taking one from each in turn. It goes on
/// whatever becomes of the monitor whose command it has.
@EventLoopActor
final class Dispatcher {
  private unowned let qemu: SimulatedQEMU
  /// The monitors, in the order in which they get their turns.
  private var monitors: [Monitor] = []
  private var current: Execution?
  private var turn: EventSource?
  /// In-band commands wait until the test says so.
  private(set) var isBlocked = false
  private var blocking: Execution?
  private var letsPass = false
  private var isStopped = false

  /// A request that is being dealt with.
  private final class Execution {
    let request: Request
    let makesRoom: Bool
    let isInBand: Bool
    let invocation: Invocation
    var timer: SimulatedClock.Timer?
    init(_ request: Request, makesRoom: Bool, isInBand: Bool, _ invocation: Invocation) {
      self.request = request
      self.invocation = invocation
      self.makesRoom = makesRoom
      self.isInBand = isInBand
    }
  }
  /// Out-of-band commands that a fault delays.
  private var delayed: [ObjectIdentifier: Execution] = [:]

  init(of qemu: SimulatedQEMU) { self.qemu = qemu }

  func add(_ monitor: Monitor) { monitors.append(monitor) }
  func remove(_ monitor: Monitor) { monitors.removeAll { $0 === monitor } }

  /// Sees to it that waiting commands get their turn. Not at once: who else has sent something is heard first.
  func wake() {
    guard turn == nil, current == nil, !isBlocked, !isStopped else { return }
    turn = try? EventSource.deferred { [weak self] in self?.takeTurn() }
  }

  func stop() {
    isStopped = true
    turn.cancel()
    current = nil
    blocking = nil
    delayed = [:]
  }

  /// Has all in-band commands wait that are not being executed yet.
  func block() { isBlocked = true }

  func unblock() {
    isBlocked = false
    if let blocking {
      self.blocking = nil
      complete(blocking, .success([:]))
    }
    wake()
  }

  /// ``unblock()``; if nothing blocks yet, the next command that would block does not.
  func unblockOrLetPass() { if isBlocked { unblock() } else { letsPass = true } }

  /// Executes an out-of-band command.
  func executeNow(_ request: Request) { begin(Execution(request, makesRoom: false, isInBand: false, Invocation(request.monitor, qemu))) }

  private func takeTurn() {
    turn = nil
    guard current == nil, !isBlocked, !isStopped else { return }
    guard let index = monitors.firstIndex(where: \.hasRequests), let (request, makesRoom) = monitors[index].nextRequest() else { return }
    monitors.append(monitors.remove(at: index))
    let execution = Execution(request, makesRoom: makesRoom, isInBand: true, Invocation(request.monitor, qemu))
    current = execution
    begin(execution)
  }

  private func begin(_ execution: Execution) {
    let request = execution.request
    qemu.reached(.beforeExecution, request)
    guard request.isWanted else { return finish(execution) }
    switch request.fault {
    case .drop?: finish(execution)
    case .close(afterExecution: false)?:
      request.monitor.chardev.disconnect()
      finish(execution)
    case .die?: qemu.die()
    case .fail(let text)?: complete(execution, .failure(CommandFailure(text)))
    case .delay(let delay)?:
      if !execution.isInBand { delayed[ObjectIdentifier(execution)] = execution }
      execution.timer = qemu.clock.schedule(after: delay) { [weak self, weak execution] in
        guard let self, let execution, !isStopped else { return }
        delayed[ObjectIdentifier(execution)] = nil
        if request.isWanted { execute(execution) } else { finish(execution) }
      }
    default: execute(execution)
    }
  }

  private func execute(_ execution: Execution) {
    let result = qemu.answer(execution.request, execution.invocation)
    guard !isStopped else { return }
    if execution.invocation.isBlocking, letsPass {
      letsPass = false
    } else if execution.invocation.isBlocking {
      isBlocked = true
      blocking = execution
      return
    }
    complete(execution, result)
  }

  private func complete(_ execution: Execution, _ result: Result<QObject, CommandFailure>) {
    let request = execution.request
    qemu.reached(.afterExecution, request)
    guard !isStopped else { return }
    // A monitor that has removed itself still tells so.
    if request.isWanted || (execution.invocation.removesItself && request.isOfLastClient) {
      deliver(reply(to: request, result), of: request)
    }
    for action in execution.invocation.afterReply { action() }
    if request.fault == .close(afterExecution: true), request.isWanted { request.monitor.chardev.disconnect() }
    guard !isStopped else { return }
    qemu.reached(.afterReply, request)
    finish(execution)
  }

  private func reply(to request: Request, _ result: Result<QObject, CommandFailure>) -> QObject {
    var reply = QDict()
    switch result {
    case .success(let value): reply["return"] = value
    case .failure(let failure): reply["error"] = ["class": .string(failure.errorClass), "desc": .string(failure.description)]
    }
    if let id = request.members?["id"] { reply["id"] = id }
    return .object(reply)
  }

  private func deliver(_ reply: QObject, of request: Request) {
    let bytes = request.monitor.encoded(reply)
    switch request.fault {
    case .mute?, .close(afterExecution: true)?: break
    case .garble?: request.monitor.reply(qemu.faults.garbled(bytes, number: request.number))
    case .reorder?: request.monitor.holdBack(bytes)
    default: request.monitor.reply(bytes)
    }
  }

  private func finish(_ execution: Execution) {
    if execution.isInBand, current === execution { current = nil }
    let request = execution.request
    // Another client's commands are not in the way of anything.
    if execution.makesRoom, request.isWanted { request.monitor.resume() }
    wake()
  }
}
