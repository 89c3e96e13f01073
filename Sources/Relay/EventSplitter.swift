/// Tells the events apart from all else in what a monitor sends, one message a line.
///
/// A value without I/O. It holds back at most one event, and the first bytes of any other line.
struct EventSplitter {
  /// A piece of the stream.
  enum Piece {
    /// A whole event with its line end.
    case event([UInt8])
    /// Part of what is none.
    case other(ArraySlice<UInt8>)
  }

  private static let beginning = Array(#"{"timestamp""#.utf8)
  /// QEMU's events are shorter than this, in bytes; a longer one is passed on as something else.
  private static let longestEvent = 1 << 20

  private enum Line { case undecided, event, other }
  private var kind = Line.undecided
  private var held: [UInt8] = []
  /// How many lines that are no events have ended.
  private(set) var otherLines = 0

  /// Whether the last byte was in the middle of a line.
  var isMidLine: Bool { kind != .undecided || !held.isEmpty }

  /// Takes in what the monitor sent, and hands it to `emit` piece by piece.
  mutating func consume(_ bytes: UnsafeRawBufferPointer, _ emit: (Piece) -> Void) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let end = rest.firstIndex(of: UInt8(ascii: "\n")).map { $0 + 1 }
      let part = rest[..<(end ?? rest.endIndex)]
      rest = rest[part.endIndex...]
      take(part, emit)
      if end != nil { finishLine(emit) }
    }
  }

  private mutating func take(_ part: Slice<UnsafeRawBufferPointer>, _ emit: (Piece) -> Void) {
    if kind == .other { return emit(.other(Array(part)[...])) }
    held.append(contentsOf: part)
    if kind == .undecided {
      if held.starts(with: Self.beginning) { kind = .event } else if !Self.beginning.starts(with: held) { kind = .other }
    }
    if kind == .event, held.count > Self.longestEvent { kind = .other }
    if kind == .other {
      emit(.other(held[...]))
      held = []
    }
  }

  private mutating func finishLine(_ emit: (Piece) -> Void) {
    if kind == .event { emit(.event(held)) } else { otherLines += 1 }
    held = []
    kind = .undecided
  }
}

extension [UInt8] {
  /// The line without its end.
  var withoutLineEnd: [UInt8] { Array(prefix { $0 != UInt8(ascii: "\r") && $0 != UInt8(ascii: "\n") }) }
}
