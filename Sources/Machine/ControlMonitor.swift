import Logging
import QMP
import SystemdEvent
import SystemdJSON

/// The monitor that the daemon keeps to itself, and the spare one that takes its place.
///
/// A session has full control over the VM, and so over our monitor as well: it can delete it, and QEMU then says nothing, it
/// only stops answering. That looks like a QEMU that is busy or stopped; a second monitor tells the two apart, and goes on
/// with the work. Monitors cost QEMU time for every command, so there is a spare only while there are sessions.
@EventLoopActor
final class ControlMonitor {
  /// How long the spare may take to answer when the control monitor does not, and how long the control monitor still may
  /// when the spare does.
  private static let spareLimit = Duration.seconds(2)

  /// Called with each event of QEMU.
  var onEvent: ((QMPEvent) -> Void)?
  /// Called after the spare has taken over, when there is none any more; with the id of the monitor before, if that is known.
  var onTakeOver: ((String?) -> Void)?
  /// Fulfilled when QEMU can be reached no more, by either.
  let lost = Promise<QMPError>()

  private var client: QMPClient
  private(set) var id: String?
  private var spare: (id: String, client: QMPClient)?
  /// The attempt under way to put the spare to work, and whether it did.
  private var takeOverUnderWay: Promise<Bool>?
  private var recovery = Promise<Void>()
  /// How long a command may take before QEMU counts as not responding.
  let responseLimit: Duration
  private let logger: Logger

  /// - Parameters:
  ///   - id: the monitor's id in QEMU, if it is one of ours.
  ///   - responseLimit: how long a command may take before QEMU counts as not responding.
  init(_ client: QMPClient, id: String?, responseLimit: Duration, logger: Logger) {
    self.client = client
    self.id = id
    self.responseLimit = responseLimit
    self.logger = logger
    adopt()
  }

  var isResponding: Bool { client.isResponding }
  /// The process at the other end, as the kernel tells it.
  var serverProcess: Int32? { client.serverProcess }
  var hasSpare: Bool { spare != nil }
  /// The id of the monitor for what QEMU executes out of band, while there is one.
  var outOfBandID: String?
  /// The id of the monitor that sessions share, while there is one.
  var sharedID: String?
  /// The ids of the control monitor, if it is one of ours, of the spare one, of the one for out-of-band commands and of the shared one.
  var ids: [String] { [id, spare?.id, outOfBandID, sharedID].compactMap { $0 } }
  /// The connection itself, for sessions that share it. Without monitors that can be added there is no spare one, and it stays this.
  var sharedClient: QMPClient { client }

  @discardableResult
  func execute(_ command: String, _ arguments: JSONVariant? = nil) async throws(QMPError) -> JSONVariant {
    try await client.execute(command, arguments)
  }

  func pipeline(_ commands: [QMPCommand]) async -> [Result<JSONVariant, QMPError>] { await client.pipeline(commands) }

  /// The reply to a command without arguments, as it came.
  func replyText(to command: String) async throws(QMPError) -> [UInt8] {
    let reply = Promise<Result<[UInt8], QMPError>>()
    client.submit(Array(#"{"execute":"\#(command)"}"#.utf8)) { reply.fulfil($0) }
    let text = try await reply.value.get()
    guard text.starts(with: #"{"error""#.utf8) else { return text }
    let error = (text + [0]).withUnsafeBufferPointer { try? JSONVariant(parsingTerminated: $0) }?["error"]
    guard let errorClass = error?["class"]?.string, let desc = error?["desc"]?.string else {
      throw .badReply("an error without class or desc")
    }
    throw .execute(command: command, errorClass: errorClass, desc: desc)
  }

  /// Waits until QEMU answers again, by either, or is lost.
  func recovered() async {
    guard !isUsable, lost.result == nil else { return }
    await recovery.value
  }

  private var isUsable: Bool { client.isResponding && client.disconnected.result == nil }

  /// Keeps a negotiated monitor at hand.
  func keep(spare client: QMPClient, id: String) {
    client.responseLimit = Self.spareLimit
    spare = (id, client)
    client.onRespondingChange = { [weak self, weak client] in
      // It was asked when the other did not answer, and is the first to come back.
      guard let self, client?.isResponding == true, !self.isUsable else { return }
      startTask { await self.takeOver() }
    }
    client.disconnected.whenFulfilled { [weak self] _ in
      if let self, self.spare?.client === client { self.spare = nil }
    }
  }

  /// Gives the spare back, to be removed.
  func releaseSpare() -> (id: String, client: QMPClient)? {
    defer { spare = nil }
    return spare
  }

  /// What ``QMPClient/unfinished`` says of it.
  var unfinished: [UInt8]? { client.unfinished }
  var descriptorNumber: CInt { client.descriptorNumber }
  var greetingText: [UInt8] { client.greetingText }
  /// Reads what QEMU says, from now on; for a client that another run of the daemon had.
  func goOn() { client.goOn() }

  func close() {
    spare?.client.close()
    spare = nil
    client.close()
  }

  private func adopt() {
    let client = client
    client.responseLimit = responseLimit
    client.keepsEventText = true
    client.onEvent = { [weak self] event in self?.onEvent?(event) }
    client.onRespondingChange = { [weak self] in self?.respondingChanged() }
    startTask { [weak self] in
      let end = await client.disconnected.value
      guard let self, self.client === client else { return }
      if await !self.takeOver() {
        self.lost.fulfil(end)
        self.recovery.fulfil()
      }
    }
  }

  private func respondingChanged() {
    if client.isResponding {
      logger.notice("QEMU answers again")
      recovery.fulfil()
      recovery = Promise()
    } else {
      logger.warning("QEMU has not answered for \(responseLimit)")
      startTask { await self.takeOver() }
    }
  }

  /// Puts the spare to work, if QEMU answers on that and not on the other.
  ///
  /// - Returns: whether there is a usable control monitor now that was the spare.
  @discardableResult
  private func takeOver() async -> Bool {
    if let underWay = takeOverUnderWay { return await underWay.value }
    guard let spare else { return false }
    let attempt = Promise<Bool>()
    takeOverUnderWay = attempt
    let succeeded = await tryTakeOver(spare.id, spare.client)
    takeOverUnderWay = nil
    attempt.fulfil(succeeded)
    return succeeded
  }

  private func tryTakeOver(_ spareID: String, _ spareClient: QMPClient) async -> Bool {
    do {
      try await spareClient.execute("query-status")
    } catch {
      // QEMU itself is at fault, or gone.
      return false
    }
    // A QEMU that has just come back to life answers both, one after the other.
    if client.disconnected.result == nil {
      let settled = Promise<Void>()
      let ended = client.disconnected.whenFulfilled { _ in settled.fulfil() }
      let waiter = recovery.whenFulfilled { settled.fulfil() }
      let awaited = (client: client, recovery: recovery)
      _ = await settled.value(within: Self.spareLimit)
      awaited.client.disconnected.forget(ended)
      awaited.recovery.forget(waiter)
    }
    guard spare?.client === spareClient, !isUsable else { return false }
    logger.warning("the control monitor was removed from QEMU; the spare one takes its place")
    let old = (client: client, id: id)
    client = spareClient
    id = spareID
    spare = nil
    adopt()
    old.client.close()
    recovery.fulfil()
    recovery = Promise()
    onTakeOver?(old.id)
    return true
  }
}
