import QEMUJSON

/// Cuts what a client of a shared monitor writes into what QEMU would answer with one reply each.
///
/// It is read as QEMU reads it, places included, so that what is malformed is answered here, in QEMU's words, and never reaches
/// the monitor: whatever one client writes, QEMU's parser stands at the beginning of a command when the next client's comes.
///
/// A value without I/O. It holds one unfinished command within ``limits``.
struct SharedInput {
  /// How many bytes a command may have without its white space, and how many tokens. QEMU reads some 150 KiB a second, and others wait
  /// meanwhile; and each token, were it one byte, takes a hundred here until its value is whole.
  static let limits = JSONInput.OwnLimits(bytes: 256 << 10, tokens: 16 << 10)

  enum Request {
    case command(SharedCommand)
    /// Something that is answered with an error before it could be looked at as a command.
    case complaint(String)
  }

  private let tellsPlaces: Bool
  private var input: JSONInput

  init(like parser: QEMUParser) {
    tellsPlaces = parser.tellsPlaces
    input = JSONInput(ownLimits: Self.limits, assembly: parser.complainsEarly ? .incremental : .whole, keeping: .compact)
  }

  /// Takes in bytes, and appends what they complete.
  mutating func consume(_ bytes: UnsafeRawBufferPointer, into requests: inout [Request]) {
    var outcomes: [JSONInput.Outcome] = []
    for byte in bytes {
      input.feed(byte, into: &outcomes)
      guard !outcomes.isEmpty else { continue }
      for outcome in outcomes {
        switch outcome {
        case .value(.object(let members)): requests.append(.command(SharedCommand(text: input.lastText, members: members)))
        case .value: requests.append(.complaint("QMP input must be a JSON object"))
        case .malformed(let reason): requests.append(.complaint(tellsPlaces ? reason : Self.withoutPlace(reason)))
        }
      }
      outcomes.removeAll(keepingCapacity: true)
    }
  }

  /// "1:2: JSON parse error, …" without its beginning.
  private static func withoutPlace(_ reason: String) -> String {
    guard let start = reason.firstRange(of: "JSON parse error,")?.lowerBound, reason[..<start].hasSuffix(": ") else { return reason }
    return String(reason[start...])
  }
}

/// How a QEMU's parser answers what is malformed. It is found out by asking, for distributions carry patches.
public struct QEMUParser: Sendable {
  /// Its complaints tell line and column.
  let tellsPlaces: Bool
  /// It complains of the first token that cannot stand where it does, and passes over what belongs to it. Otherwise it looks at
  /// what it has when the brackets are balanced.
  let complainsEarly: Bool

  /// What to ask: it gets one complaint from every QEMU, and leaves the parser at rest.
  public static let question = Array("{]".utf8)

  /// - Parameter answer: the reply to ``question``.
  public init(answering answer: [UInt8]) {
    let text = String(decoding: answer, as: UTF8.self)
    tellsPlaces = !text.contains(#""desc": "JSON parse error"#)
    complainsEarly = text.contains("expecting key")
  }
}

/// A JSON object that a client of a shared monitor sent, which need not be a command: its text, and the little that is asked of it.
struct SharedCommand {
  /// What QEMU is to get, on one line, with nothing between the tokens.
  let text: [UInt8]
  /// The name of the command, if there is one.
  let name: String?
  /// Whether it negotiates the capability `oob`.
  let enablesOutOfBand: Bool

  init(text: [UInt8], members: QDict) {
    self.text = text
    name = members["execute"]?.string
    enablesOutOfBand = name == "qmp_capabilities" && members["arguments"]?["enable"]?.elements?.contains("oob") == true
  }

  /// The same with a name that no command has: QEMU finds fault with everything else first, then answers that there is no such
  /// command, with the id as it spells it, and does nothing.
  var withoutName: [UInt8] {
    var lexer = JSONLexer()
    var result: [UInt8] = []
    var depth = 0
    // What the last two tokens of the outermost object were.
    var key: JSONToken?
    var isBehindColon = false
    for byte in text {
      let (before, with) = lexer.feed(byte)
      for case let token? in [before, with] {
        switch token.kind {
        case .openBrace, .openBracket: depth += 1
        case .closeBrace, .closeBracket: depth -= 1
        default: break
        }
        if depth == 1, token.kind == .string, isBehindColon, Self.isExecute(key) {
          result += "\"\"".utf8
        } else {
          result += token.bytes
        }
        guard depth == 1 else { continue }
        if token.kind == .colon {
          isBehindColon = true
        } else {
          key = token.kind == .string && !isBehindColon ? token : nil
          isBehindColon = false
        }
      }
    }
    return result
  }

  /// Whether a token is the key of the command's name, however that is written.
  private static func isExecute(_ key: JSONToken?) -> Bool {
    guard let key else { return false }
    return (try? QObject(parsing: String(decoding: key.bytes, as: UTF8.self)))?.string == "execute"
  }
}
