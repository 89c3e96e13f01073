/// Cuts a stream of JSON objects into its objects, wherever the chunks end: by braces, as QEMU itself does, not by lines,
/// so that pretty-printing servers are understood too.
///
/// A value without I/O. It looks at structure only; whether an object is valid JSON is the parser's business.
struct MessageSplitter {
  /// What cannot be cut.
  enum Fault: Error, Equatable {
    /// Something other than an object stands where a message should begin.
    case notAnObject(UInt8)
    /// A message is longer than the limit, in bytes; this is how it begins. It is passed over.
    case tooLong(limit: Int, beginning: [UInt8])
  }

  /// The longest message accepted, in bytes.
  let limit: Int
  /// How much is told of a longer one, in bytes.
  private static let toldOfTooLong = 64
  private var buffer: [UInt8] = []
  /// Where the message being scanned begins, and how far it has been looked at.
  private var start = 0
  private var scanned = 0
  private var depth = 0
  /// How deep the brackets of the message at `start` have been nested so far.
  private var deepest = 0
  private var inString = false
  private var afterBackslash = false
  /// What comes is dropped up to a line's end that an opening brace follows, where every server begins a message.
  private var skipping = false
  private var afterLineEnd = false

  init(limit: Int) { self.limit = limit }

  /// The message that is under way, as far as it came; nil if what comes is being dropped.
  var unfinished: [UInt8]? { skipping ? nil : Array(buffer[start...]) }

  /// Gives up the message that is under way, if there is one: the next line that could begin a message does.
  mutating func skipUnfinished() {
    guard depth > 0 else { return }
    buffer.removeAll()
    (start, scanned, depth, deepest) = (0, 0, 0, 0)
    (inString, afterBackslash) = (false, false)
    (skipping, afterLineEnd) = (true, false)
  }

  /// Takes in bytes from the stream.
  mutating func append(_ bytes: UnsafeRawBufferPointer) {
    var bytes = bytes[...]
    while skipping, let byte = bytes.first {
      if afterLineEnd, byte == UInt8(ascii: "{") {
        skipping = false
      } else if byte == UInt8(ascii: "\n") {
        afterLineEnd = true
        bytes.removeFirst()
      } else {
        afterLineEnd = false
        bytes = bytes[(bytes.firstIndex(of: UInt8(ascii: "\n")) ?? bytes.endIndex)...]
      }
    }
    if start > 0 {
      buffer.removeFirst(start)
      scanned -= start
      start = 0
    }
    buffer.append(contentsOf: bytes)
  }

  /// Calls `body` with the next whole message, followed by a NUL that is part of the view, and how deep its brackets are nested; the
  /// view is valid during the call.
  ///
  /// - Returns: nil when no whole message is there.
  /// - Throws: ``Fault``. After ``Fault/notAnObject(_:)`` the splitter is of no further use; after ``Fault/tooLong(limit:beginning:)`` it
  ///   goes on with the next line that begins a message.
  mutating func next<Result>(_ body: (UnsafeBufferPointer<UInt8>, Int) -> Result) throws(Fault) -> Result? {
    guard let end = try scan() else {
      // There may have been a line's end behind the last message.
      releaseIfEmpty()
      return nil
    }
    let range = start..<end
    start = end
    let depth = deepest
    deepest = 0
    // The parser wants a terminator; the byte that stands there is put back.
    let overwritten: UInt8? = end < buffer.count ? buffer[end] : nil
    if overwritten == nil { buffer.append(0) } else { buffer[end] = 0 }
    defer {
      if let overwritten { buffer[end] = overwritten } else { buffer.removeLast() }
      releaseIfEmpty()
    }
    return buffer.withUnsafeBufferPointer { body(UnsafeBufferPointer(rebasing: $0[range.lowerBound...range.upperBound]), depth) }
  }

  private mutating func releaseIfEmpty() {
    guard start == buffer.count else { return }
    // Small buffers are kept for the next message; a large one was for a rare large reply.
    buffer.removeAll(keepingCapacity: buffer.capacity <= 65536)
    start = 0
    scanned = 0
  }

  /// Looks for the end of the message at `start`; its index is one past the closing brace.
  private mutating func scan() throws(Fault) -> Int? {
    while scanned < buffer.count {
      let byte = buffer[scanned]
      scanned += 1
      if inString {
        if afterBackslash {
          afterBackslash = false
        } else if byte == UInt8(ascii: "\\") {
          afterBackslash = true
        } else if byte == UInt8(ascii: "\"") {
          inString = false
        }
        continue
      }
      switch byte {
      case UInt8(ascii: "{"), UInt8(ascii: "["):
        if depth == 0 {
          guard byte == UInt8(ascii: "{") else { throw .notAnObject(byte) }
          start = scanned - 1
        }
        depth += 1
        deepest = max(deepest, depth)
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        guard depth > 0 else { throw .notAnObject(byte) }
        depth -= 1
        if depth == 0 { return scanned }
      case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"), UInt8(ascii: "\n"):
        if depth == 0 { start = scanned }
      default:
        guard depth > 0 else { throw .notAnObject(byte) }
        if byte == UInt8(ascii: "\"") { inString = true }
      }
    }
    guard buffer.count - start > limit else { return nil }
    let beginning = Array(buffer[start...].prefix(Self.toldOfTooLong))
    skipUnfinished()
    throw .tooLong(limit: limit, beginning: beginning)
  }
}
