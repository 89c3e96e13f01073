/// The input of one QMP connection: bytes in, values and complaints out, framed by the structure of JSON and nothing else, as QEMU
/// frames it.
///
/// A value without I/O. Its memory is bounded as QEMU's is: by the bytes of its tokens, by two million tokens and 1024 open brackets a
/// value.
package struct JSONInput {
  package enum Outcome: Equatable {
    case value(QObject)
    /// What is wrong, in QEMU's words.
    case malformed(String)
  }

  /// Which text of a value is kept.
  package enum KeptText {
    /// As it came, cut off behind so many bytes.
    case asItCame(atMost: Int)
    /// All of it, without the white space between the tokens: what QEMU makes the same value of.
    case compact
  }

  /// How tokens become values.
  package enum Assembly: Sendable {
    /// Each is looked at as it comes. After a complaint the rest of the value is passed over (QEMU 11.1).
    case incremental
    /// Once there are as many closing brackets as opening ones, or too many. After a complaint the next token begins anew (QEMU 7.2).
    case whole
  }

  private static let mostTokens = 2 << 20
  private static let deepest = 1024
  /// QEMU's limit for the bytes of a value's tokens.
  package static let longestValue = 64 << 20

  /// How much a value may have, where that is less than QEMU's limits. A value that has more is refused once, and passed over to
  /// its end: what follows in it must not be taken for commands.
  package struct OwnLimits: Sendable {
    /// Bytes of its tokens together.
    package var bytes: Int
    package var tokens: Int
    package init(bytes: Int, tokens: Int) {
      self.bytes = bytes
      self.tokens = tokens
    }
  }

  private let ownLimits: OwnLimits?
  private let keptText: KeptText
  private let assembly: Assembly
  /// The tokens of the value under way, if they are put together at its end.
  private(set) var collected: [JSONToken] = []

  private var lexer: JSONLexer
  private var parser = JSONParser()
  private var braces = 0
  private var brackets = 0
  private var tokens = 0
  private var tokenBytes = 0
  /// A complaint was made, and the rest of what it was about is skipped.
  private var isRecovering = false
  /// The text of the value under way.
  private var text: [UInt8] = []
  /// The text of the last value that was complete.
  package private(set) var lastText: [UInt8] = []

  /// - Parameters:
  ///   - ownLimits: such as are narrower than QEMU's.
  ///   - assembly: how tokens become values.
  ///   - keptText: what ``lastText`` is to be.
  package init(
    ownLimits: OwnLimits? = nil, assembly: Assembly = .incremental, keeping keptText: KeptText = .asItCame(atMost: 65536)
  ) {
    self.assembly = assembly
    self.ownLimits = ownLimits
    self.keptText = keptText
    lexer = JSONLexer(longestToken: ownLimits?.bytes ?? Self.longestValue, passesOverOversized: ownLimits != nil)
  }

  /// Whether a value has begun and not ended.
  package var isAmidValue: Bool { tokens > 0 || lexer.isAmidToken }

  /// Takes in one byte and appends what it completes: two things at most.
  package mutating func feed(_ byte: UInt8, into outcomes: inout [Outcome]) {
    if case .asItCame(let longest) = keptText, !(text.isEmpty && byte.isJSONSpace), text.count < longest { text.append(byte) }
    let (before, with) = lexer.feed(byte)
    for case let token? in [before, with] {
      if let outcome = process(token) { outcomes.append(outcome) }
    }
  }

  private mutating func process(_ token: JSONToken) -> Outcome? {
    switch token.kind {
    case .openBrace: braces += 1
    case .closeBrace: braces -= 1
    case .openBracket: brackets += 1
    case .closeBracket: brackets -= 1
    default: break
    }
    tokens += 1
    // What was skipped before is no part of it.
    if tokens == 1 { text = token.bytes } else if case .compact = keptText, !isRecovering { text += token.bytes }
    tokenBytes += token.bytes.count
    defer {
      if braces < 0 || brackets < 0 || (braces == 0 && brackets == 0) || token.kind == .stray { startOver() }
    }
    guard !isRecovering else { return nil }
    if let ownLimits, token.kind != .stray {
      let isTooLong = tokenBytes > ownLimits.bytes || token.kind == .oversized
      if isTooLong || tokens > ownLimits.tokens {
        collected = []
        return complain("JSON token \(isTooLong ? "size" : "count") limit exceeded")
      }
    }
    if assembly == .whole { return collect(token) }
    do throws(JSONParser.Fault) {
      if tokenBytes > Self.longestValue || token.kind == .oversized { return complain("JSON token size limit exceeded") }
      if tokens > Self.mostTokens { return complain("JSON token count limit exceeded") }
      if braces + brackets > Self.deepest { return complain("JSON nesting depth limit exceeded") }
      guard token.kind != .stray else { throw .init(reason: "stray '\(printable(token.bytes))'") }
      guard let value = try parser.feed(token) else { return nil }
      lastText = text
      return .value(value)
    } catch {
      return complain("\(token.place): JSON parse error, \(Self.cut(error.reason))")
    }
  }

  private mutating func collect(_ token: JSONToken) -> Outcome? {
    var complaint: String?
    if token.kind == .stray {
      complaint = "\(token.place): JSON parse error, stray '\(printable(token.bytes))'"
    } else if tokenBytes > Self.longestValue || token.kind == .oversized {
      complaint = "JSON token size limit exceeded"
    } else if tokens > Self.mostTokens {
      complaint = "JSON token count limit exceeded"
    } else if braces + brackets > Self.deepest {
      complaint = "JSON nesting depth limit exceeded"
    }
    if let complaint {
      startOver()
      return .malformed(complaint)
    }
    collected.append(token)
    if braces > 0 || brackets > 0, braces >= 0, brackets >= 0 { return nil }
    do throws(JSONTokenTree.Fault) {
      let value = try JSONTokenTree.value(of: collected)
      lastText = text
      return .value(value)
    } catch {
      return .malformed("\(error.place): JSON parse error, \(Self.cut(error.reason))")
    }
  }

  /// QEMU formats the reason in a buffer of 1024 bytes.
  private static func cut(_ reason: String) -> String { printable(Array(modifiedUTF8(reason).prefix(1023))) }

  private mutating func complain(_ reason: String) -> Outcome {
    isRecovering = true
    parser.reset()
    text = []
    return .malformed(reason)
  }

  private mutating func startOver() {
    isRecovering = false
    braces = 0
    brackets = 0
    tokens = 0
    tokenBytes = 0
    text = []
    collected = []
    parser.reset()
  }
}

extension UInt8 {
  /// White space as JSON has it.
  var isJSONSpace: Bool {
    self == UInt8(ascii: " ") || self == UInt8(ascii: "\n") || self == UInt8(ascii: "\r") || self == UInt8(ascii: "\t")
  }
}
