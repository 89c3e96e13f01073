import SystemdEvent
import SystemdJSON

/// Follows what a monitor sends from message to message, and counts the replies: everything is one but events, which begin
/// with their timestamp, and the greeting.
///
/// A value without I/O. QEMU writes one message a line; on a monitor that is pretty, one from a line `{` to a line `}`.
struct ReplyScanner {
  /// What the next byte belongs to.
  private enum Place: Int {
    /// A new message.
    case start
    /// Behind the brace that opens one.
    case brace
    /// Behind the quote before its first name.
    case name
    /// The last line of a message.
    case lastLine
    /// In a pretty message: the blanks before its first name; behind that quote; within a line; at the beginning of one.
    case prettyBlanks, prettyName, prettyLine, prettyLineStart
  }
  private var place = Place.start

  /// A command has succeeded, which none does before the capabilities are negotiated.
  private(set) var isNegotiated = false

  /// Whether the last byte was in the middle of a message.
  var isMidMessage: Bool { place != .start }

  /// Goes on with another monitor.
  mutating func beginAnew() { place = .start }

  /// How many replies begin in `bytes`.
  mutating func count(in bytes: UnsafeRawBufferPointer) -> Int {
    var count = 0
    var index = 0
    while index < bytes.count {
      if place == .lastLine || place == .prettyLine {
        // Most of the bytes, and none of them matters but the end of the line.
        guard let end = bytes[index...].firstIndex(of: UInt8(ascii: "\n")) else { return count }
        place = place == .lastLine ? .start : .prettyLineStart
        index = end + 1
        continue
      }
      let byte = bytes[index]
      index += 1
      switch place {
      case .start: place = byte == UInt8(ascii: "{") ? .brace : byte == UInt8(ascii: "\n") ? .start : .lastLine
      case .brace:
        let isBlank = byte == UInt8(ascii: "\r") || byte == UInt8(ascii: "\n")
        place = byte == UInt8(ascii: "\"") ? .name : isBlank ? .prettyBlanks : .lastLine
      case .name, .prettyName:
        // "return"…, "id"…, "error"… against "timestamp"… and "QMP"…
        if byte != UInt8(ascii: "t"), byte != UInt8(ascii: "Q") { count += 1 }
        if byte == UInt8(ascii: "r") { isNegotiated = true }
        place = place == .name ? .lastLine : .prettyLine
      case .prettyBlanks: if byte == UInt8(ascii: "\"") { place = .prettyName }
      case .prettyLineStart: place = byte == UInt8(ascii: "}") ? .lastLine : byte == UInt8(ascii: "\n") ? .prettyLineStart : .prettyLine
      case .lastLine, .prettyLine: break
      }
    }
    return count
  }
}

// What the next run of the daemon goes on with.
extension ReplyScanner {
  @EventLoopActor var carried: JSONVariant {
    .object(["place": .integer(place.rawValue), "negotiated": .boolean(isNegotiated)])
  }

  @EventLoopActor init(carried: JSONVariant) throws(Handover.Failure) {
    guard let number = carried["place"]?.integer, let place = Place(rawValue: Int(number)), let negotiated = carried["negotiated"]?.boolean
    else { throw Handover.Failure("a stream of replies that cannot be read") }
    (self.place, isNegotiated) = (place, negotiated)
  }
}
