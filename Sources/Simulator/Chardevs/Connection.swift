import Glibc
import SystemdEvent

/// The client's end of a character device: one connected stream socket.
///
/// Output is written at once as far as the kernel takes it; the rest waits, up to a limit, behind which the connection is given up:
/// QEMU itself has no limit there. Input is read in pieces of 64 KiB, only while somebody wants it.
@EventLoopActor
final class Connection {
  private static let pieceSize = 65536

  private var descriptor: OwnedDescriptor?
  private var source: EventSource?
  private let longestUnsent: Int
  private var unsent: [UInt8] = []
  private var sent = 0
  /// Descriptors that came with the input and that no command has taken. The next that come take their place, as in QEMU.
  private var passed = PassedDescriptors()

  /// Gets each piece of input.
  var onInput: (([UInt8]) -> Void)?
  /// The client will send nothing more.
  var onEndOfInput: (() -> Void)?
  /// The client has gone altogether, or takes in nothing any more.
  var onHangUp: (() -> Void)?

  init(_ descriptor: consuming OwnedDescriptor, longestUnsent: Int) {
    self.descriptor = consume descriptor
    self.longestUnsent = longestUnsent
  }

  isolated deinit { source.cancel() }

  /// Whether input is read. Hang-ups are noticed either way, once it has been true.
  var reads = false {
    didSet {
      guard reads != oldValue else { return }
      if source == nil, let raw = descriptor?.raw {
        source = try? EventSource.descriptor(raw, []) { [weak self] in self?.ready($0) }
      }
      updateInterest()
    }
  }

  /// Whether the client has gone already.
  var hasHungUp: Bool {
    guard let raw = descriptor?.raw else { return true }
    var poll = pollfd(fd: raw, events: 0, revents: 0)
    return Glibc.poll(&poll, 1, 0) > 0 && poll.revents & Int16(POLLHUP) != 0
  }

  /// Has nothing of the client be noticed any more, not even that it goes.
  func stopWatching() {
    reads = false
    source.cancel()
    onInput = nil
    onEndOfInput = nil
    onHangUp = nil
  }

  /// How many bytes wait for the client.
  var unsentCount: Int { unsent.count - sent }

  /// The first of the descriptors that came; the others are closed.
  func takeDescriptor() -> OwnedDescriptor? {
    let all = passed.take()
    for raw in all.dropFirst() { _ = Glibc.close(raw) }
    return all.first.map { OwnedDescriptor(owning: $0) }
  }

  func write(_ bytes: [UInt8]) {
    guard descriptor != nil else { return }
    unsent += bytes
    flush()
    if unsentCount > longestUnsent { onHangUp?() }
  }

  /// Closes our end. What the kernel has not taken is lost.
  func close() {
    source.cancel()
    descriptor = nil
    unsent = []
    sent = 0
    passed.close()
  }

  private func ready(_ ready: Readiness) {
    if !ready.isDisjoint(with: [.hangUp, .error]) {
      // Before any input: QEMU, which reads byte by byte, seldom gets to that.
      onHangUp?()
      return
    }
    if ready.contains(.writable) { flush() }
    if ready.contains(.readable), reads { read() }
  }

  private func read() {
    guard let raw = descriptor?.raw else { return }
    var arrived = PassedDescriptors()
    var piece: [UInt8] = []
    let transfer = withUnsafeTemporaryAllocation(byteCount: Self.pieceSize, alignment: 8) { buffer in
      let transfer = receive(raw, isSocket: true, into: buffer, descriptors: &arrived)
      if case .bytes(let count) = transfer { piece = Array(buffer[..<count]) }
      return transfer
    }
    switch transfer {
    case .bytes(0):
      reads = false
      onEndOfInput?()
    case .bytes:
      if !arrived.isEmpty {
        passed.close()
        passed.append(arrived.take())
      }
      onInput?(piece)
    case .wouldBlock: break
    case .failed: onHangUp?()
    }
  }

  private func flush() {
    guard let raw = descriptor?.raw else { return }
    while sent < unsent.count {
      let transfer = unsent.withUnsafeBytes { send(raw, isSocket: true, UnsafeRawBufferPointer(rebasing: $0[sent...])) }
      switch transfer {
      case .bytes(let count): sent += count
      case .wouldBlock:
        if sent > 1 << 20 {
          unsent.removeFirst(sent)
          sent = 0
        }
        updateInterest()
        return
      case .failed:
        // The hang-up that follows ends the connection.
        sent = unsent.count
      }
    }
    unsent.removeAll(keepingCapacity: unsent.count <= Self.pieceSize)
    sent = 0
    updateInterest()
  }

  private func updateInterest() {
    var interest: Readiness = []
    if reads { interest.insert(.readable) }
    if sent < unsent.count { interest.insert(.writable) }
    source?.interest = interest
  }
}
