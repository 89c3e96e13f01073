/// Finds the end of a drain in what a monitor sends, and keeps the drain's own traces from the client.
///
/// A drain writes byte 0xFF, which resets QEMU's JSON lexer whatever state the client left it in, and then commands with a
/// nonce in their ids: one for each descriptor to be closed, and a last one. QEMU answers in order, behind everything that
/// the client is still owed: one error line without an id for the 0xFF, then the lines with the nonce. So an error line is
/// held back until the next reply shows whose it was.
///
/// A value without I/O. Lines longer than ``longestHeld`` are passed on without being held: neither line of a drain is as
/// long, unless the client left an unterminated string of that length, whose error report it then gets to see.
struct DrainFilter {
  /// The longest line, in bytes, that is looked at as a whole.
  static let longestHeld = 65536

  private let nonce: [UInt8]
  /// What stands behind the nonce in the ids of all commands but the last.
  private static let notLast = UInt8(ascii: "+")
  private var line: [UInt8] = []
  private var heldError: [UInt8] = []
  /// In the middle of a line that is passed on as it comes.
  private var passing: Bool
  /// The nonce has come; nothing is passed on any more.
  private(set) var isDone = false

  /// - Parameters:
  ///   - nonce: what the id of the drain's command contains; no reply of the client's may.
  ///   - midLine: whether the last byte that came before the drain was in the middle of a line.
  init(nonce: String, midLine: Bool) {
    self.nonce = Array(nonce.utf8)
    passing = midLine
  }

  /// The bytes that begin a drain.
  ///
  /// - Parameter closing: names of descriptors that the session passed to QEMU and may have left there, as JSON strings. QEMU
  ///   does not close them with the monitor.
  static func request(nonce: String, closing names: some Sequence<String> = EmptyCollection()) -> [UInt8] {
    var request: [UInt8] = [0xFF]
    for name in names {
      request += #"{"execute":"closefd","arguments":{"fdname":\#(name)},"id":"\#(nonce)+"}"#.utf8
    }
    return request + #"{"execute":"","id":"\#(nonce)"}"#.utf8
  }

  /// Takes in what the monitor sent, and gives back what the client is to get.
  mutating func filter(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
    var output: [UInt8] = []
    var rest = bytes[...]
    while !isDone, !rest.isEmpty {
      let end = rest.firstIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? rest.endIndex
      let piece = rest[..<end]
      let isWhole = piece.last == UInt8(ascii: "\n")
      rest = rest[end...]
      if passing {
        output.append(contentsOf: piece)
        passing = !isWhole
        continue
      }
      line.append(contentsOf: piece)
      if isWhole {
        finishLine(&output)
      } else if line.count > Self.longestHeld {
        release(&output)
        passing = true
      }
    }
    return output
  }

  private mutating func finishLine(_ output: inout [UInt8]) {
    if line.starts(with: #"{"timestamp""#.utf8) {
      // An event, which may come between the two. It does not say whose the held error is.
      output += line
      line.removeAll(keepingCapacity: true)
    } else if let end = line.end(of: nonce) {
      isDone = line[end] != Self.notLast
      line.removeAll(keepingCapacity: true)
      heldError = []
    } else if line.starts(with: #"{"error""#.utf8) {
      output += heldError
      swap(&heldError, &line)
      line.removeAll(keepingCapacity: true)
    } else {
      release(&output)
    }
  }

  private mutating func release(_ output: inout [UInt8]) {
    output += heldError
    output += line
    heldError.removeAll(keepingCapacity: true)
    line.removeAll(keepingCapacity: true)
  }
}

extension [UInt8] {
  /// The index behind the first mention of `needle`, if that is not the end.
  func end(of needle: [UInt8]) -> Int? {
    guard count > needle.count else { return nil }
    return (0..<(count - needle.count)).first { self[$0...].starts(with: needle) }.map { $0 + needle.count }
  }
}
