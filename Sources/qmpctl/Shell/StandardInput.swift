import Control
import Glibc
import SystemdEvent

/// This program's standard input, line by line, whatever it is.
@EventLoopActor
final class StandardInput {
  /// The longest line, in bytes.
  private static let longestLine = 16 << 20

  private var bytes: [UInt8] = []
  /// How many of them have been given out, and how many have been looked at.
  private var start = 0
  private var looked = 0
  private var hasEnded = false
  private let closed = Promise<Chunk>()
  /// Whether ``close()`` was called.
  var isClosed: Bool { closed.result != nil }

  private enum Chunk: Sendable {
    case bytes([UInt8])
    case failed(CInt)
    case closed
  }

  /// Has no more lines from now on, also for who waits for one.
  func close() { closed.fulfil(.closed) }

  /// The next line without its end; nil when there is none.
  ///
  /// - Throws: ``ControlError``.
  func line() async throws -> String? {
    while !isClosed {
      if let end = bytes[looked...].firstIndex(of: UInt8(ascii: "\n")) {
        defer { (start, looked) = (end + 1, end + 1) }
        return String(decoding: bytes[start..<end], as: UTF8.self)
      }
      if hasEnded {
        defer { (start, looked) = (bytes.count, bytes.count) }
        return start < bytes.count ? String(decoding: bytes[start...], as: UTF8.self) : nil
      }
      bytes.removeFirst(start)
      (start, looked) = (0, bytes.count)
      guard bytes.count <= Self.longestLine else { throw ControlError(.failed, "a line is longer than \(Self.longestLine >> 20) MiB") }
      switch await chunk() {
      case .bytes(let chunk):
        hasEnded = chunk.isEmpty
        bytes += chunk
      case .failed(let number): throw ControlError(.failed, "standard input: \(String(cString: strerror(number)))")
      case .closed: break
      }
    }
    return nil
  }

  /// What can be read. A file cannot be waited for, and a pipe may be shared with who does not expect it to change its mode: so a thread
  /// waits, which is left alone when nobody wants to know any more.
  private func chunk() async -> Chunk {
    let arrived = Promise<Chunk>()
    startTask {
      let chunk = try? await onOwnThread { () -> Chunk in
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
          let count = read(0, &buffer, buffer.count)
          if count >= 0 { return .bytes(Array(buffer[..<count])) }
          if errno != EINTR { return .failed(errno) }
        }
      }
      arrived.fulfil(chunk ?? .failed(EIO))
    }
    let waiter = closed.whenFulfilled { arrived.fulfil($0) }
    defer { closed.forget(waiter) }
    return await arrived.value
  }
}
