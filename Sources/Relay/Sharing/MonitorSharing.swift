import DequeModule
public import SystemdEvent

/// Serves any number of sessions on one monitor.
///
/// Each has a socket that behaves as a monitor of its own does (``SharedSession``), and which a ``Relay`` takes for one. Those with
/// commands take turns, one command at a time. QEMU has few of them at once, so that whoever comes next need not wait for what another
/// has queued, and the daemon's own commands neither.
@EventLoopActor
public final class MonitorSharing {
  /// Sends a command to QEMU; the reply comes without its line end, nil if there will be none.
  public typealias Submit = @EventLoopActor (_ text: [UInt8], _ descriptors: [CInt], _ reply: @escaping ([UInt8]?) -> Void) -> Void

  /// How many commands QEMU has at once, which may all be of one session if no other has any. With one, QEMU would wait for us between
  /// two; with more than two (measured up to 16) nothing gets faster, and whoever comes next waits longer.
  private static let mostInFlight = 2
  /// A command of more bytes has QEMU's input to itself, at some 5 µs a byte: who waits for it waits for one such command, not for two.
  static let longCommand = 16 << 10

  /// The clients' greeting.
  private let greeting: [UInt8]
  private let parser: QEMUParser
  private let submit: Submit
  private var sessions: [ObjectIdentifier: SharedEndpoint] = [:]
  /// Those that may have a command to send, in the order of their turns.
  private var turns: Deque<SharedEndpoint> = []
  private var inFlight = 0
  private var isPumping = false
  private var hasEnded = false

  /// - Parameters:
  ///   - greeting: QEMU's own, without its line end.
  ///   - parser: how this QEMU's parser answers what is malformed.
  public init(greeting: [UInt8], parser: QEMUParser, submit: @escaping Submit) {
    self.greeting = sharedGreeting(greeting)
    self.parser = parser
    self.submit = submit
  }

  /// Begins a session.
  ///
  /// - Returns: the client's end of what behaves as a monitor, and a handle on the other.
  public func open() throws(SystemdError) -> SharedMonitorSession {
    let pair = try SocketPair()
    let state = SharedSession(greeting: greeting, parser: parser, mostInFlight: Self.mostInFlight)
    let endpoint = try SharedEndpoint(pair.theirs.duplicate(), state)
    let client = pair.takeOurs()
    client.limitSendBuffer(to: SharedEndpoint.chunk)
    sessions[ObjectIdentifier(endpoint)] = endpoint
    endpoint.onRequests = { [weak self, weak endpoint] in
      guard let self, let endpoint else { return }
      queue(endpoint)
      pump()
    }
    endpoint.onEnd = { [weak self, weak endpoint] in
      if let endpoint { self?.sessions[ObjectIdentifier(endpoint)] = nil }
    }
    endpoint.start()
    if hasEnded { endpoint.end() }
    return SharedMonitorSession(socket: client, endpoint: endpoint)
  }

  /// Takes in an event, without its line end.
  public func event(_ text: [UInt8]) {
    for endpoint in sessions.values { endpoint.event(text) }
  }

  /// Ends all sessions, as QEMU's end does: each client gets what has come for it, and the end of file.
  public func end() {
    hasEnded = true
    for endpoint in sessions.values { endpoint.end() }
  }

  private func queue(_ endpoint: SharedEndpoint) {
    // Who comes while its long command is under way has the next turn.
    guard !endpoint.hasTurn, !endpoint.hasLongCommand else { return }
    endpoint.hasTurn = true
    turns.append(endpoint)
  }

  private func pump() {
    guard !isPumping else { return }
    isPumping = true
    defer { isPumping = false }
    while inFlight < Self.mostInFlight, let endpoint = turns.popFirst() {
      endpoint.hasTurn = false
      guard let command = endpoint.next() else { continue }
      let isLong = command.text.count > Self.longCommand
      let share = isLong ? Self.mostInFlight : 1
      inFlight += share
      endpoint.hasLongCommand = isLong
      queue(endpoint)
      submit(command.text, command.descriptors?.raw ?? []) { [self] reply in
        inFlight -= share
        if isLong { endpoint.hasLongCommand = false }
        endpoint.replied(reply)
        queue(endpoint)
        pump()
      }
    }
  }
}

/// A session on a shared monitor, as it is handed to whoever carries it.
public struct SharedMonitorSession: ~Copyable {
  /// Behaves as a monitor of one's own.
  public let socket: OwnedDescriptor
  public let endpoint: SharedEndpoint

  /// The socket alone.
  public consuming func takeSocket() -> OwnedDescriptor { socket }
}
