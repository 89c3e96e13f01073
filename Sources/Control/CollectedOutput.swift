import Glibc
import SystemdEvent

/// What a program prints into a pipe, up to a bound: what comes after that is read and dropped.
@EventLoopActor
final class CollectedOutput {
  private(set) var bytes: [UInt8] = []
  /// Whether there was more than is kept.
  private(set) var isCut = false
  /// Fulfilled when nobody has the other end any more.
  let ended = Promise<Void>()
  /// The end to write to; to be let go of when the program has it.
  private var writing: OwnedDescriptor?
  private let reading: OwnedDescriptor
  private let limit: Int
  private var source: EventSource?

  /// - Parameter limit: how many bytes are kept.
  init(limit: Int) throws(SystemdError) {
    self.limit = limit
    var pipes: [CInt] = [-1, -1]
    guard pipe(&pipes) == 0 else { throw .last("pipe") }
    reading = OwnedDescriptor(owning: pipes[0])
    writing = OwnedDescriptor(owning: pipes[1])
    for end in pipes { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    source = try .descriptor(pipes[0], .readable) { [weak self] _ in self?.read() }
  }

  // The source goes before the descriptor that it watches.
  isolated deinit { source.cancel() }

  var writingEnd: CInt { writing?.raw ?? -1 }
  func closeWritingEnd() { writing = nil }

  var text: String { String(decoding: bytes, as: UTF8.self) }

  private func read() {
    withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 1) { buffer in
      let count = Glibc.read(reading.raw, buffer.baseAddress, buffer.count)
      guard count > 0 else {
        if count < 0, errno == EINTR { return }
        source.cancel()
        return ended.fulfil()
      }
      let room = limit - bytes.count
      bytes.append(contentsOf: buffer[..<min(room, count)])
      if count > room { isCut = true }
    }
  }
}
