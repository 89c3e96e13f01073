import Control
import SystemdEvent
import SystemdJSON
import Terminal

/// The names that the human monitor knows, for completion.
struct HMPCommands {
  private var commands: [String] = []
  /// Of `info`.
  private var topics: [String] = []
  private static let most = 1000

  init() {}

  /// Asks for them; what is refused has none.
  ///
  /// - Throws: ``ControlError`` if the session ends.
  @EventLoopActor
  init(of session: QMPSession) async throws(ControlError) {
    if let text = try await session.send(.hmp("help")).outputText { commands = Self.names(in: text) }
    if let text = try await session.send(.hmp("help info")).outputText { topics = Self.names(in: text, behind: "info ") }
  }

  /// The names at the beginning of lines such as `info|i [subcommand] -- show …`.
  ///
  /// - Parameter prefix: what stands before each of them.
  static func names(in help: String, behind prefix: String = "") -> [String] {
    let lines = help.split(whereSeparator: \.isNewline).prefix(most).filter { $0.hasPrefix(prefix) }
    let names = lines.flatMap { $0.dropFirst(prefix.count).prefix { !$0.isWhitespace }.split(separator: "|").map(String.init) }
    return names.filter { name in name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_" || $0 == "-") } }
  }

  /// What could stand at the end of a line.
  func completion(of line: String) -> LineCompletion {
    let words = line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
    guard let typed = words.last else { return .none }
    return switch (words.count, words[0]) {
    case (1, _), (2, "help"), (2, "?"): LineCompletion(of: typed, among: commands.map { .init($0) })
    case (2, "info"), (2, "i"): LineCompletion(of: typed, among: topics.map { .init($0) })
    default: .none
    }
  }
}

extension QMPSession.Reply {
  @EventLoopActor fileprivate var outputText: String? { if case .success(let value) = result { value.string } else { nil } }
}
