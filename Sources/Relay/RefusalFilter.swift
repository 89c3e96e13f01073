import SystemdEvent
import SystemdJSON

/// Puts our own replies in the place where they belong among QEMU's.
///
/// A command that is refused is not kept from QEMU but replaced by a placeholder: a command that does not exist, with an id
/// of ours. QEMU's answer to that comes in order, and is replaced by the refusal.
///
/// A value without I/O. It holds back at most the beginning of one line.
struct RefusalFilter {
  /// QEMU's answer to a placeholder is shorter than this, in bytes; what is longer is none.
  private static let longestHeld = 512

  private let nonce: String
  private var counter = 0
  private var refusals: [[UInt8]: [UInt8]] = [:]
  private var line: [UInt8] = []
  private var passing = false

  init(nonce: String) { self.nonce = nonce }

  /// What to send QEMU instead of a command that is answered with `reply`.
  mutating func placeholder(for reply: [UInt8]) -> [UInt8] {
    counter += 1
    let id = "\(nonce)-\(counter)"
    refusals[Array("\"\(id)\"".utf8)] = reply
    return Array(#"{"execute":"","id":"\#(id)"}"#.utf8)
  }

  /// Takes in what the monitor sent, and gives back what the client is to get.
  mutating func filter(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
    var output: [UInt8] = []
    for byte in bytes {
      if passing {
        output.append(byte)
      } else {
        line.append(byte)
      }
      if byte == UInt8(ascii: "\n") {
        if !passing { output += replacement() }
        line.removeAll(keepingCapacity: true)
        passing = false
      } else if !passing, refusals.isEmpty || line.count > Self.longestHeld {
        output += line
        line.removeAll(keepingCapacity: true)
        passing = true
      }
    }
    return output
  }

  /// The next byte is another monitor's first.
  mutating func beginAnew() {
    line = []
    passing = false
  }

  private mutating func replacement() -> [UInt8] {
    // QEMU writes the id of a reply without arguments first or last; the nonce makes it unmistakable.
    guard let start = line.end(of: Array("\"\(nonce)-".utf8)), let end = line[start...].firstIndex(of: UInt8(ascii: "\"")) else {
      return line
    }
    let id = Array(line[(start - nonce.utf8.count - 2)...end])
    return refusals.removeValue(forKey: id) ?? line
  }
}

// What the next run of the daemon goes on with.
extension RefusalFilter {
  @EventLoopActor var carried: JSONVariant {
    .object([
      "nonce": .string(nonce), "counter": .integer(counter),
      "refusals": .array(refusals.map { .array([.bytes($0.key), .bytes($0.value)]) }),
      "line": .bytes(line), "passing": .boolean(passing),
    ])
  }

  @EventLoopActor init(carried: JSONVariant) throws(Handover.Failure) {
    guard let nonce = carried["nonce"]?.string, let counter = carried["counter"]?.integer, let line = carried["line"]?.bytes,
      let passing = carried["passing"]?.boolean, let refusals = carried["refusals"]?.elements
    else { throw Handover.Failure("refusals that cannot be read") }
    (self.nonce, self.counter, self.line, self.passing) = (nonce, Int(counter), line, passing)
    for pair in refusals.compactMap(\.elements) where pair.count == 2 {
      if let id = pair[0].bytes, let reply = pair[1].bytes { self.refusals[id] = reply }
    }
  }
}
