/// Counts the replies in what a monitor sends, by the beginnings of its lines: everything is a reply but events, which begin
/// with their timestamp, and the greeting.
///
/// A value without I/O. QEMU writes one message a line, unless the monitor is a pretty-printing one, which ours are not.
struct ReplyScanner {
  /// How far the line under way has got, no further than the byte that tells.
  private var column = 0

  /// Whether the last byte was in the middle of a line.
  var isMidLine: Bool { column > 0 }

  /// How many replies begin in `bytes`.
  mutating func count(in bytes: UnsafeRawBufferPointer) -> Int {
    var count = 0
    var index = 0
    while index < bytes.count {
      let byte = bytes[index]
      if column == 2 {
        // {"return"…, {"id"…, {"error"… against {"timestamp"… and {"QMP"…
        if byte != UInt8(ascii: "t"), byte != UInt8(ascii: "Q") { count += 1 }
        column = 3
      }
      if column > 2 {
        guard let end = bytes[index...].firstIndex(of: UInt8(ascii: "\n")) else { return count }
        column = 0
        index = end + 1
      } else {
        column = byte == UInt8(ascii: "\n") ? 0 : column + 1
        index += 1
      }
    }
    return count
  }
}
