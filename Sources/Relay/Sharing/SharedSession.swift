import DequeModule
import QEMUJSON
import SystemdEvent

/// One client's view of a monitor that it shares: greeting, negotiation, commands, replies and events, as on a monitor of its own
/// whose QEMU does not offer `oob`.
///
/// QEMU executes the in-band commands of a monitor in order and answers each with one reply, so commands need no ids of ours: they go
/// as they are, and a queue says what the next reply is for. Only what QEMU cannot do for each client apart is changed on the way:
/// the negotiation (``SharedReply``), and names of descriptors, which would be everybody's.
///
/// A value without I/O: ``receive(_:descriptors:)`` takes what the client wrote, ``next()`` gives what QEMU is to get,
/// ``replied(_:)`` and ``event(_:)`` take what comes back; what the client gets collects in ``output``.
struct SharedSession {
  /// A command on its way to QEMU.
  struct Outgoing {
    let text: [UInt8]
    /// Go with its first byte.
    let descriptors: CarriedDescriptors?
  }

  private enum Awaited {
    /// The reply to a command that QEMU has.
    case reply(SharedReply)
    /// A reply of ours, whose turn has not come.
    case complaint(String)
  }

  /// What the client is to get; the owner takes it out.
  var output: [UInt8] = []
  private(set) var isNegotiated = false
  /// How many commands QEMU has.
  private(set) var inFlight = 0

  private let mostInFlight: Int
  private var input: SharedInput
  /// Each with what came with its bytes.
  private var requests: Deque<(request: SharedInput.Request, arrived: CarriedDescriptors?)> = []
  private var awaited: Deque<Awaited> = []
  /// Came with bytes of what is no whole request yet.
  private var arriving: CarriedDescriptors?
  /// Came with the requests so far, and no command has taken them. QEMU keeps the newest ones only, and so does this.
  private var heldDescriptors: CarriedDescriptors?
  /// A negotiation is under way. What follows waits for its outcome.
  private var isNegotiating = false
  private var isAbandoned = false

  /// - Parameters:
  ///   - greeting: the clients', which is ``sharedGreeting(_:)`` of QEMU's own, without a line end.
  ///   - parser: how this QEMU's parser answers what is malformed.
  ///   - mostInFlight: how many commands of this client QEMU may have at once.
  init(greeting: [UInt8], parser: QEMUParser, mostInFlight: Int) {
    input = SharedInput(like: parser)
    self.mostInFlight = mostInFlight
    deliver(greeting)
  }

  /// Whether nothing that the client sent is left to be done.
  var isIdle: Bool { requests.isEmpty && awaited.isEmpty }
  /// Whether there is something that has not been looked at.
  var hasRequests: Bool { !requests.isEmpty }

  /// Takes in what the client wrote.
  mutating func receive(_ bytes: UnsafeRawBufferPointer, descriptors: CarriedDescriptors? = nil) {
    if let descriptors { arriving = descriptors }
    var received: [SharedInput.Request] = []
    input.consume(bytes, into: &received)
    for request in received {
      requests.append((request, arriving))
      arriving = nil
    }
  }

  /// The client has gone: what QEMU has not got is dropped, but for commands without a name, by which a ``Relay`` finds the end.
  mutating func abandon() { isAbandoned = true }

  /// The next command for QEMU; nil if there is none, or none may go now.
  mutating func next() -> Outgoing? {
    while let (request, arrived) = requests.first {
      switch request {
      case .complaint(let desc):
        removeFirstRequest(arrived)
        if !isAbandoned { awaited.append(.complaint(desc)) }
        deliverComplaints()
      case .command(let command):
        if isAbandoned, command.name?.isEmpty != true {
          removeFirstRequest(arrived)
          continue
        }
        guard !isNegotiating, inFlight < mostInFlight else { return nil }
        removeFirstRequest(arrived)
        let treatment = treatment(of: command)
        if case .negotiation = treatment { isNegotiating = true }
        awaited.append(.reply(treatment))
        inFlight += 1
        if case .refused = treatment { return Outgoing(text: command.withoutName, descriptors: nil) }
        return Outgoing(text: command.text, descriptors: command.name == "add-fd" ? takeDescriptors() : nil)
      }
    }
    return nil
  }

  private mutating func removeFirstRequest(_ arrived: CarriedDescriptors?) {
    requests.removeFirst()
    if let arrived { heldDescriptors = arrived }
  }

  private mutating func takeDescriptors() -> CarriedDescriptors? {
    defer { heldDescriptors = nil }
    return heldDescriptors
  }

  private func treatment(of command: SharedCommand) -> SharedReply {
    // Without a name, or with something else for one, it is an error whatever else it is.
    guard let name = command.name else { return .verbatim }
    guard isNegotiated else {
      guard name == "qmp_capabilities" else { return .notNegotiated }
      return .negotiation(asksForOutOfBand: command.enablesOutOfBand)
    }
    switch name {
    case "getfd", "closefd":
      return .refused(
        errorClass: "GenericError",
        desc: "The command \(name) is not available in a session that shares its monitor: the names are the monitor's. Use add-fd")
    // QEMU would take one that came with another client's command, should that have left it.
    case "add-fd" where heldDescriptors == nil: return .noDescriptor
    default: return .verbatim
    }
  }

  /// Takes in QEMU's reply to the oldest command that it has, without its line end.
  mutating func replied(_ reply: [UInt8]) {
    guard case .reply(let treatment)? = awaited.popFirst() else { return }
    inFlight -= 1
    let (text, negotiates) = treatment.delivered(of: reply)
    if case .negotiation = treatment { isNegotiating = false }
    if negotiates { isNegotiated = true }
    deliver(text)
    deliverComplaints()
  }

  /// Takes in an event, without its line end.
  mutating func event(_ text: [UInt8]) {
    if isNegotiated { deliver(text) }
  }

  private mutating func deliverComplaints() {
    while case .complaint(let desc)? = awaited.first {
      awaited.removeFirst()
      deliver(SharedReply.complaint(desc))
    }
  }

  private mutating func deliver(_ line: [UInt8]) {
    output += line
    output += "\r\n".utf8
  }
}

/// Descriptors that wait for the command that they came with; closed with this object.
final class CarriedDescriptors {
  let raw: [CInt]
  init(owning raw: [CInt]) { self.raw = raw }
  deinit { _ = PassedDescriptors(owning: raw) }
}
