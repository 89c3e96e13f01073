import SystemdEvent
import SystemdJSON

/// Follows the JSON that a client writes to its monitor, and takes the insignificant white space out of it.
///
/// QEMU reads its input byte by byte, at some 5 µs each. A whole command is forwarded in its shortest form; white space
/// between commands is not forwarded at all. What is not plain JSON is forwarded just as it came, and in the place where it
/// stood: QEMU's error messages tell line and column, counted over the connection, so white space that was taken out before
/// is put back then.
///
/// A value without I/O. It holds back at most one unfinished command of at most ``longestHeld`` bytes, which means nothing
/// to QEMU anyway. Three kinds of input are not compacted:
/// - a command with non-ASCII text, `\u` escapes, many keys or more than ``longestHeld`` bytes: forwarded as it is;
/// - a command that is not plain JSON (QEMU may accept more, or answer with an error): it and all that follows it are
///   forwarded as they are, because only QEMU knows where the next command begins.
struct CommandStream {
  /// The longest command that is held back until it is whole, in bytes.
  static let longestHeld = 65536

  /// What came out of a piece of input.
  enum Piece {
    /// A whole command, in the form in which QEMU is to get it.
    case command(ArraySlice<UInt8>)
    /// Bytes that are forwarded as they came: malformed input, or part of a long command.
    case raw(ArraySlice<UInt8>)
  }

  /// Nothing is understood any more; all is forwarded as it comes.
  private(set) var isRaw = false

  private var scanner = CommandScanner()
  /// The beginning of a command whose end has not come yet.
  private var held: [UInt8] = []
  /// The command under way is being forwarded as it comes, because it is too long to be held.
  private(set) var isStreaming = false
  /// Where the client's text has come to, and where the text that QEMU gets has.
  private var written = TextPosition()
  private var forwarded = TextPosition()

  /// Whether a command has begun and not ended.
  var isAmidCommand: Bool { isStreaming || !held.isEmpty }

  /// More white space than this is not put back, in bytes: QEMU takes some 5 µs for each.
  private static let longestPadding = 65536

  /// Goes on with a new monitor. A command whose beginning is held back stays.
  ///
  /// - Parameter column: how many bytes that will have had, on one line.
  mutating func beginAnew(column: Int) {
    forwarded = TextPosition(column: column)
    if held.isEmpty { scanner = CommandScanner() }
  }

  /// Takes in what the client wrote, and hands what is to be forwarded to `emit`, in order.
  mutating func consume(_ input: UnsafeRawBufferPointer, _ emit: (Piece) -> Void) {
    var rest = input[...]
    while !rest.isEmpty, !isRaw {
      if !isAmidCommand, skipSpace(&rest) { continue }
      guard let first = rest.first else { return }
      if !isAmidCommand, first != UInt8(ascii: "{") {
        isRaw = true
        break
      }
      switch scanner.scan(rest) {
      case .unfinished:
        return hold(rest, emit)
      case .finished(let end):
        let part = rest[..<end]
        rest = rest[end...]
        finish(part, emit)
      case .malformed:
        isRaw = true
        var whole = held
        held = []
        whole.append(contentsOf: rest)
        forwardAsWritten(whole[...], emit)
        return
      }
    }
    if isRaw, !rest.isEmpty { forwardAsWritten(Array(rest)[...], emit) }
  }

  /// Passes over white space between commands.
  private mutating func skipSpace(_ rest: inout Slice<UnsafeRawBufferPointer>) -> Bool {
    let space = rest.prefix { $0.isJSONSpace }
    written.advance(over: space)
    rest = rest[space.endIndex...]
    return !space.isEmpty
  }

  private mutating func hold(_ part: Slice<UnsafeRawBufferPointer>, _ emit: (Piece) -> Void) {
    if isStreaming { return forwardAsWritten(Array(part)[...], emit) }
    held.append(contentsOf: part)
    guard held.count > Self.longestHeld else { return }
    isStreaming = true
    let whole = held
    held = []
    forwardAsWritten(whole[...], emit)
  }

  private mutating func finish(_ part: Slice<UnsafeRawBufferPointer>, _ emit: (Piece) -> Void) {
    let isPlain = scanner.isPlain
    scanner.reset()
    if isStreaming {
      isStreaming = false
      return forwardAsWritten(Array(part)[...], emit)
    }
    held.append(contentsOf: part)
    defer { held.removeAll(keepingCapacity: held.count <= 1024) }
    if !isPlain { align(emit) }
    let command = isPlain ? Self.compacted(held) : held
    written.advance(over: held)
    forwarded.advance(over: command)
    emit(.command(command[...]))
  }

  /// Forwards bytes that QEMU may have an opinion on, in the place where the client wrote them.
  private mutating func forwardAsWritten(_ bytes: ArraySlice<UInt8>, _ emit: (Piece) -> Void) {
    align(emit)
    written.advance(over: bytes)
    forwarded.advance(over: bytes)
    emit(.raw(bytes))
  }

  /// Puts white space back so that line and column are the client's own.
  private mutating func align(_ emit: (Piece) -> Void) {
    let padding = forwarded.padding(to: written)
    guard !padding.isEmpty else { return }
    guard padding.count <= Self.longestPadding else {
      written = forwarded
      return
    }
    forwarded = written
    emit(.raw(padding[...]))
  }

  /// A whole, plain command without the white space outside its strings.
  private static func compacted(_ command: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(command.count)
    var inString = false
    var afterBackslash = false
    for byte in command {
      if inString {
        if afterBackslash {
          afterBackslash = false
        } else if byte == UInt8(ascii: "\\") {
          afterBackslash = true
        } else if byte == UInt8(ascii: "\"") {
          inString = false
        }
      } else if byte == UInt8(ascii: "\"") {
        inString = true
      } else if byte.isJSONSpace {
        continue
      }
      result.append(byte)
    }
    return result
  }
}

// What the next run of the daemon goes on with.
extension CommandStream {
  /// In the middle of a command that is too long to be held, nothing is understood any more from there on.
  @EventLoopActor var carried: JSONVariant {
    .object([
      "raw": .boolean(isRaw || isStreaming), "held": .bytes(held),
      "places": .array([written.line, written.column, forwarded.line, forwarded.column].map { .integer($0) }),
    ])
  }

  @EventLoopActor init(carried: JSONVariant) throws(Handover.Failure) {
    guard let raw = carried["raw"]?.boolean, let bytes = carried["held"]?.bytes,
      let places = carried["places"]?.elements?.compactMap(\.integer).map({ Int($0) }), places.count == 4
    else { throw Handover.Failure("a stream of commands that cannot be read") }
    (isRaw, held) = (raw, bytes)
    written = TextPosition(line: places[0], column: places[1])
    forwarded = TextPosition(line: places[2], column: places[3])
    // So it comes to where it was.
    guard !held.isEmpty else { return }
    let outcome = held.withUnsafeBytes { scanner.scan($0[...]) }
    guard outcome == .unfinished else { throw Handover.Failure("a command that is not the beginning of one") }
  }
}

/// A place in a text, counted as QEMU's lexer counts.
struct TextPosition: Equatable {
  var line = 0
  var column = 0

  mutating func advance(over bytes: some Sequence<UInt8>) {
    for byte in bytes {
      if byte == UInt8(ascii: "\n") {
        line += 1
        column = 0
      } else {
        column += 1
      }
    }
  }

  /// The white space that leads from here to a place further on.
  func padding(to place: TextPosition) -> [UInt8] {
    let lines = place.line - line
    let columns = lines > 0 ? place.column : place.column - column
    return Array(repeating: UInt8(ascii: "\n"), count: max(0, lines)) + Array(repeating: UInt8(ascii: " "), count: max(0, columns))
  }
}

extension UInt8 {
  /// White space as JSON has it.
  var isJSONSpace: Bool {
    self == UInt8(ascii: " ") || self == UInt8(ascii: "\n") || self == UInt8(ascii: "\r") || self == UInt8(ascii: "\t")
  }
}
