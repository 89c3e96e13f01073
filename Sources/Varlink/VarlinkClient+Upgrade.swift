import CSystemd
import Glibc
import SystemPackage
public import SystemdEvent
public import SystemdJSON

extension VarlinkClient {
  /// A connection that speaks another protocol from now on.
  public struct Upgraded: ~Copyable {
    /// The parameters of the last Varlink message; an empty object if it has none.
    public let reply: JSONVariant
    /// The socket, non-blocking. Nothing that came behind the last Varlink message has been read.
    public var descriptor: OwnedDescriptor

    /// The socket alone.
    public consuming func takeDescriptor() -> OwnedDescriptor { descriptor }
  }

  /// Calls a method that turns the connection over to another protocol. The client is closed after this, however it goes.
  ///
  /// libsystemd can do this too, but keeps the whole loop while it waits.
  ///
  /// - Parameters:
  ///   - method: the qualified name.
  ///   - limit: how long the answer may take.
  /// - Throws: ``VarlinkClientError``; for cancellation ``VarlinkClientError/closed``.
  public func upgrade(
    _ method: String, _ parameters: JSONVariant? = nil, within limit: Duration
  ) async throws(VarlinkClientError) -> Upgraded {
    guard !isClosed, !Task.isCancelled else { throw .closed }
    let raw = sd_varlink_get_fd(link)
    let copy = raw < 0 ? -1 : fcntl(raw, F_DUPFD_CLOEXEC, 3)
    guard copy >= 0 else { throw .connect(raw < 0 ? SystemdError("sd_varlink_get_fd", Errno(rawValue: -raw)) : .last("dup")) }
    // Between calls libsystemd has read nothing that it has not handed out.
    end(.closed)
    let exchange = UpgradeExchange(OwnedDescriptor(owning: copy), until: .now + limit)
    let request = JSONVariant.object([
      ("method", .string(method)), ("parameters", parameters ?? .object([:])), ("upgrade", .boolean(true)),
    ])
    try await exchange.send(request)
    let answer = try await exchange.receive()
    let reply = answer["parameters"].flatMap { $0.isObject ? $0 : nil } ?? .object([:])
    if let error = answer["error"]?.string {
      throw .refused(VarlinkError(error, reply.members?.isEmpty ?? true ? nil : reply))
    }
    return Upgraded(reply: reply, descriptor: exchange.takeDescriptor())
  }
}

/// One Varlink message each way, of which not a byte too many is read.
@EventLoopActor
private final class UpgradeExchange {
  /// The longest reply, in bytes: there are a few members in it.
  private static let longestReply = 65536

  private var descriptor: OwnedDescriptor?
  private let raw: CInt
  private let end: ContinuousClock.Instant

  init(_ descriptor: consuming OwnedDescriptor, until end: ContinuousClock.Instant) {
    raw = descriptor.raw
    self.descriptor = consume descriptor
    self.end = end
    _ = fcntl(raw, F_SETFL, fcntl(raw, F_GETFL) | O_NONBLOCK)
  }

  func takeDescriptor() -> OwnedDescriptor {
    guard let descriptor = descriptor.take() else { preconditionFailure("the descriptor is taken once") }
    return descriptor
  }

  func send(_ message: JSONVariant) async throws(VarlinkClientError) {
    var rest = (Array(message.text.utf8) + [0])[...]
    while !rest.isEmpty {
      switch rest.withUnsafeBytes({ SystemdEvent.send(raw, isSocket: true, $0) }) {
      case .bytes(let count): rest = rest.dropFirst(count)
      case .wouldBlock: try await wait(for: .writable)
      case .failed: throw .disconnected
      }
    }
  }

  func receive() async throws(VarlinkClientError) -> JSONVariant {
    var message: [UInt8] = []
    while message.count < Self.longestReply {
      let piece = peek()
      guard let piece else {
        try await wait(for: .readable)
        continue
      }
      let count = piece.firstIndex(of: 0).map { $0 + 1 } ?? piece.count
      // An end, or an error, which there is nothing to be read of.
      guard count > 0, take(count) else { throw .disconnected }
      message += piece[..<count]
      guard message.last == 0 else { continue }
      guard let answer = try? JSONVariant(parsing: String(decoding: message.dropLast(), as: UTF8.self)), answer.isObject else { break }
      return answer
    }
    throw .disconnected
  }

  /// What is there, left where it is; nil if that is nothing yet.
  private func peek() -> [UInt8]? {
    var failure: CInt = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: 4096) { buffer, count in
      let result = recv(raw, buffer.baseAddress, buffer.count, CInt(MSG_PEEK | MSG_DONTWAIT))
      failure = result < 0 ? errno : 0
      count = max(0, result)
    }
    return failure == EAGAIN || failure == EINTR ? nil : bytes
  }

  /// Reads what has been looked at.
  private func take(_ count: Int) -> Bool {
    withUnsafeTemporaryAllocation(byteCount: count, alignment: 1) { recv(raw, $0.baseAddress, count, CInt(MSG_DONTWAIT)) == count }
  }

  private func wait(for readiness: Readiness) async throws(VarlinkClientError) {
    let isReady = Promise<Void>()
    let source: EventSource
    do throws(SystemdError) {
      source = try .descriptor(raw, readiness) { _ in isReady.fulfil() }
    } catch {
      throw .connect(error)
    }
    let inTime = await withTaskCancellationHandler {
      await isReady.value(within: end - .now) != nil
    } onCancel: {
      startTask { isReady.fulfil() }
    }
    source.cancel()
    guard !Task.isCancelled else { throw .closed }
    guard inTime else { throw .timedOut }
  }
}
