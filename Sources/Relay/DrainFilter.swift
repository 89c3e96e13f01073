import SystemdEvent
import SystemdJSON

/// Finds the end of a drain in what a monitor sends, and keeps the drain's own traces from the client.
///
/// A drain writes byte 0xFF, which resets QEMU's JSON lexer whatever state the client left it in, and then commands with a
/// nonce in their ids: one for each descriptor to be closed, and a last one. QEMU answers in order, behind everything that
/// the client is still owed: one error without an id for the 0xFF, then the replies with the nonce. So an error is held back
/// until the next reply shows whose it was.
///
/// A value without I/O. Messages longer than ``longestHeld`` are passed on without being held: none of a drain is as long,
/// unless the client left an unterminated string of that length, whose error report it then gets to see.
struct DrainFilter {
  /// The longest message, in bytes, that is looked at as a whole.
  static let longestHeld = 65536

  private let nonce: [UInt8]
  /// What stands behind the nonce in the ids of all commands but the last.
  private static let notLast = UInt8(ascii: "+")
  /// Where messages end.
  private var scanner: ReplyScanner
  private var message: [UInt8] = []
  private var heldError: [UInt8] = []
  /// In the middle of a message that is passed on as it comes.
  private var passing: Bool
  /// The nonce has come; nothing is passed on any more.
  private(set) var isDone = false
  /// What came behind the nonce in the same piece: events, at most.
  private(set) var rest: [UInt8] = []

  /// - Parameters:
  ///   - nonce: what the id of the drain's command contains; no reply of the client's may.
  ///   - scanner: has seen all that came before the drain.
  init(nonce: String, after scanner: ReplyScanner) {
    self.nonce = Array(nonce.utf8)
    self.scanner = scanner
    passing = scanner.isMidMessage
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
      let line = rest[..<end]
      rest = rest[end...]
      _ = scanner.count(in: UnsafeRawBufferPointer(rebasing: line))
      if passing {
        output.append(contentsOf: line)
        passing = scanner.isMidMessage
        continue
      }
      message.append(contentsOf: line)
      if !scanner.isMidMessage {
        finishMessage(&output)
        if isDone { self.rest = Array(rest) }
      } else if message.count > Self.longestHeld {
        release(&output)
        passing = true
      }
    }
    return output
  }

  private mutating func finishMessage(_ output: inout [UInt8]) {
    let firstName = message.dropFirst().drop { [UInt8(ascii: " "), UInt8(ascii: "\r"), UInt8(ascii: "\n")].contains($0) }
    if firstName.starts(with: #""timestamp""#.utf8) {
      // An event, which may come between the two. It does not say whose the held error is.
      output += message
      message.removeAll(keepingCapacity: true)
    } else if let end = message.end(of: nonce) {
      isDone = message[end] != Self.notLast
      message.removeAll(keepingCapacity: true)
      heldError = []
    } else if firstName.starts(with: #""error""#.utf8) {
      output += heldError
      swap(&heldError, &message)
      message.removeAll(keepingCapacity: true)
    } else {
      release(&output)
    }
  }

  private mutating func release(_ output: inout [UInt8]) {
    output += heldError
    output += message
    heldError.removeAll(keepingCapacity: true)
    message.removeAll(keepingCapacity: true)
  }
}

// What the next run of the daemon goes on with, in the middle of a drain.
extension DrainFilter {
  @EventLoopActor var carried: JSONVariant {
    .object([
      "nonce": .bytes(nonce), "scanner": scanner.carried, "message": .bytes(message), "heldError": .bytes(heldError),
      "passing": .boolean(passing),
    ])
  }

  @EventLoopActor init(carried: JSONVariant) throws(Handover.Failure) {
    guard let nonce = carried["nonce"]?.bytes, let scanner = carried["scanner"], let message = carried["message"]?.bytes,
      let heldError = carried["heldError"]?.bytes, let passing = carried["passing"]?.boolean
    else { throw Handover.Failure("a drain that cannot be read") }
    self.scanner = try ReplyScanner(carried: scanner)
    (self.nonce, self.message, self.heldError, self.passing) = (nonce, message, heldError, passing)
  }
}

extension [UInt8] {
  /// The index behind the first mention of `needle`, if that is not the end.
  func end(of needle: [UInt8]) -> Int? {
    guard count > needle.count else { return nil }
    return (0..<(count - needle.count)).first { self[$0...].starts(with: needle) }.map { $0 + needle.count }
  }
}
