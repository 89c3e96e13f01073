import Glibc
import SystemPackage
public import SystemdEvent

/// Carries bytes and descriptors between two sockets, both ways, until both directions have ended.
///
/// An end of one direction is passed on as that, so that what was asked before it is still answered. Each direction holds one chunk
/// at most, and does not read while the other side does not take that.
@EventLoopActor
public final class StreamPump {
  /// Fulfilled when both directions have ended.
  public let ended = Promise<Void>()
  private var directions: [Direction] = []

  /// Takes over two connected sockets, and starts.
  public init(_ one: consuming OwnedDescriptor, _ other: consuming OwnedDescriptor) throws(SystemdError) {
    // epoll takes a descriptor once: one number for each direction.
    let oneOut = try one.duplicate()
    let otherOut = try other.duplicate()
    let forth = Direction(from: one, to: otherOut)
    let back = Direction(from: other, to: oneOut)
    directions = [forth, back]
    for direction in directions { try direction.start { [weak self] in self?.directionEnded() } }
  }

  /// Ends it at once.
  public func close() {
    for direction in directions { direction.close() }
    directions = []
    ended.fulfil()
  }

  private func directionEnded() {
    // A socket that breaks ends the one direction at once, and the other when what it still has is read.
    if directions.allSatisfy(\.hasEnded) { close() }
  }

  /// One of the two.
  @EventLoopActor
  private final class Direction {
    private static let chunk = 65536

    private(set) var hasEnded = false
    private var input: OwnedDescriptor?
    private var output: OwnedDescriptor?
    private var inputSource: EventSource?
    private var outputSource: EventSource?
    private var held: ArraySlice<UInt8> = []
    private var descriptors = PassedDescriptors()
    private var onEnd: (() -> Void)?

    init(from input: consuming OwnedDescriptor, to output: consuming OwnedDescriptor) {
      self.input = consume input
      self.output = consume output
    }

    // The sources go before the descriptors that they watch.
    isolated deinit { close() }

    /// - Parameter onEnd: called once.
    func start(_ onEnd: @escaping () -> Void) throws(SystemdError) {
      self.onEnd = onEnd
      guard let input = input?.raw, let output = output?.raw else { return }
      outputSource = try .descriptor(output, []) { [weak self] in self?.outputReady($0) }
      inputSource = try .descriptor(input, .readable) { [weak self] _ in self?.read() }
    }

    func close() {
      inputSource.cancel()
      outputSource.cancel()
      input = nil
      output = nil
      descriptors.close()
      onEnd = nil
    }

    private func end() {
      hasEnded = true
      inputSource.cancel()
      outputSource.cancel()
      let handler = onEnd
      onEnd = nil
      handler?()
    }

    private func read() {
      guard held.isEmpty, let raw = input?.raw else { return }
      var bytes: [UInt8] = []
      let transfer = withUnsafeTemporaryAllocation(byteCount: Self.chunk, alignment: 16) { buffer in
        let transfer = receive(raw, isSocket: true, into: buffer, descriptors: &descriptors)
        if case .bytes(let count) = transfer { bytes = Array(buffer[..<count]) }
        return transfer
      }
      switch transfer {
      case .wouldBlock: return
      case .failed, .bytes(0):
        if let output = output?.raw { shutdown(output, CInt(SHUT_WR)) }
        end()
      case .bytes:
        held = bytes[...]
        write()
      }
    }

    private func outputReady(_ ready: Readiness) {
      // Nobody is there to read it.
      if ready.isDisjoint(with: [.hangUp, .error]) { write() } else { end() }
    }

    private func write() {
      guard let raw = output?.raw else { return }
      while !held.isEmpty {
        switch held.withUnsafeBytes({ send(raw, isSocket: true, $0, descriptors: descriptors.raw) }) {
        case .bytes(let count):
          held = held.dropFirst(count)
          descriptors.close()
        case .wouldBlock:
          inputSource?.interest = []
          outputSource?.interest = .writable
          return
        case .failed: return end()
        }
      }
      inputSource?.interest = .readable
      outputSource?.interest = []
    }
  }
}
