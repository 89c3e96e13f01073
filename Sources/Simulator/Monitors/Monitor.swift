import DequeModule
import QEMUJSON
import SystemdEvent

/// A monitor: the data model of the monitor-hotplug series, and what one QMP connection is at.
///
/// An HMP monitor greets and then takes no notice of its input.
@EventLoopActor
final class Monitor {
  enum Mode: String {
    case qmp = "control"
    case hmp = "readline"
  }
  /// What becomes of the monitor when its client goes.
  enum CloseAction: String, CaseIterable {
    case none, delete
  }

  /// How many in-band commands may wait when out-of-band ones are enabled; without, one. Input is left unread when they do.
  private static let longestQueue = 8

  let id: String
  let mode: Mode
  let chardev: Chardev
  /// Made at run time, not on the command line.
  let isDynamic: Bool
  var isPretty: Bool
  var closeAction = CloseAction.none
  /// What its property `chardev` says, which qom-set can change to no other effect.
  var chardevProperty: String
  private unowned let qemu: SimulatedQEMU

  /// Removed; what is still under way on it gets no reply.
  var isDead = false
  private(set) var isNegotiated = false
  private(set) var isOutOfBandEnabled = false
  /// What getfd has stored, by name.
  var descriptors: [String: HeldDescriptor] = [:]
  /// How many commands have come.
  private var commandCount = 0

  private var input = JSONInput()
  /// What was read and not looked at yet.
  private var unread: ArraySlice<UInt8> = []
  private var inputHasEnded = false
  private var queue = Deque<Request>()
  /// How many commands are in the way of reading on.
  private var suspensions = 0
  /// Replies that a fault has put behind the next one.
  private var heldReplies: [[UInt8]] = []
  /// Counts the clients: what one of them asked is not told to the next.
  private(set) var session = 0

  init(_ id: String, _ mode: Mode, on chardev: Chardev, isDynamic: Bool, isPretty: Bool = false, of qemu: SimulatedQEMU) {
    self.id = id
    self.mode = mode
    self.chardev = chardev
    chardevProperty = chardev.id
    self.isDynamic = isDynamic
    self.isPretty = isPretty
    self.qemu = qemu
  }

  // MARK: the client

  /// A client is there.
  func opened() {
    session += 1
    input = JSONInput()
    inputHasEnded = false
    isNegotiated = false
    isOutOfBandEnabled = false
    switch mode {
    case .qmp: send(qemu.greeting)
    case .hmp: chardev.write(Array("QEMU \(qemu.version) monitor - type 'help' for more information\r\n(qemu) ".utf8))
    }
    updateReading()
  }

  /// The client has gone; what it asked and was not executed is not.
  func closed() {
    session += 1
    queue.removeAll()
    suspensions = 0
    unread = []
    heldReplies = []
    isNegotiated = false
    isOutOfBandEnabled = false
    if closeAction == .delete, !isDead { qemu.removeWithChardev(self) }
  }

  func received(_ bytes: [UInt8]) {
    guard mode == .qmp else { return }
    unread = bytes[...]
    consume()
  }

  /// The client sends nothing more. QEMU closes the connection as soon as it reads that, whatever else is to be said.
  func receivedEnd() {
    inputHasEnded = true
    consume()
  }

  /// Looks at what was read, as far as commands may be taken in.
  private func consume() {
    var outcomes: [JSONInput.Outcome] = []
    let session = session
    while suspensions == 0, self.session == session, !isDead, let byte = unread.popFirst() {
      input.feed(byte, into: &outcomes)
      for outcome in outcomes { take(outcome) }
      outcomes.removeAll(keepingCapacity: true)
    }
    guard self.session == session, !isDead else { return }
    updateReading()
    if inputHasEnded, unread.isEmpty, suspensions == 0 { chardev.disconnect() }
  }

  private func updateReading() { chardev.connection?.reads = unread.isEmpty && suspensions == 0 && !inputHasEnded }

  private func take(_ outcome: JSONInput.Outcome) {
    let request: Request
    switch outcome {
    case .malformed(let reason): request = Request(self, session, .failure(CommandFailure(reason)))
    case .value(let value):
      guard case .object = value else {
        request = Request(self, session, .success(value))
        break
      }
      commandCount += 1
      request = qemu.register(value, String(decoding: input.lastText, as: UTF8.self), on: self, ownNumber: commandCount)
    }
    // Whoever looks on may have ended all this.
    guard request.isWanted else { return }
    if request.isOutOfBand {
      qemu.dispatcher.executeNow(request)
    } else {
      if !isOutOfBandEnabled || queue.count == Self.longestQueue - 1 { suspensions += 1 }
      queue.append(request)
      qemu.dispatcher.wake()
    }
  }

  // MARK: the dispatcher

  var hasRequests: Bool { !queue.isEmpty }

  /// The next request, and whether its end makes room for more.
  func nextRequest() -> (request: Request, makesRoom: Bool)? {
    guard let request = queue.popFirst() else { return nil }
    return (request, !isOutOfBandEnabled || queue.count == Self.longestQueue - 1)
  }

  /// A request that stood in the way has been dealt with.
  func resume() {
    guard suspensions > 0 else { return }
    suspensions -= 1
    if suspensions == 0 { consume() }
  }

  func negotiated(outOfBand: Bool) {
    isNegotiated = true
    isOutOfBandEnabled = outOfBand
  }

  /// Removes it from what commands can reach; its client notices nothing yet.
  func die() {
    isDead = true
    queue.removeAll()
    unread = []
    heldReplies = []
    chardev.detach()
  }

  // MARK: output

  /// The bytes of a message, as this monitor spells it.
  func encoded(_ message: QObject) -> [UInt8] {
    let bytes = message.encoded(pretty: isPretty)
    guard isPretty else { return bytes + [UInt8(ascii: "\r"), UInt8(ascii: "\n")] }
    return bytes.flatMap { $0 == UInt8(ascii: "\n") ? [UInt8(ascii: "\r"), $0] : [$0] } + [UInt8(ascii: "\r"), UInt8(ascii: "\n")]
  }

  func send(_ message: QObject) { chardev.write(encoded(message)) }

  /// Sends a reply, and those that were to come behind it.
  func reply(_ bytes: [UInt8]) {
    chardev.write(bytes)
    let held = heldReplies
    heldReplies = []
    for reply in held { chardev.write(reply) }
  }

  /// Puts a reply behind the next one.
  func holdBack(_ reply: [UInt8]) {
    heldReplies.append(reply)
    // As many as there can be commands under way; more would only cost memory.
    if heldReplies.count > Self.longestQueue { chardev.write(heldReplies.removeFirst()) }
  }
}

/// A descriptor in a table.
final class HeldDescriptor: Sendable {
  let descriptor: OwnedDescriptor
  init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }
}
