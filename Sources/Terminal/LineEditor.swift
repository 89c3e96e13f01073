/// A line that is being typed: text, cursor, history, search and undo.
///
/// A value without I/O: keys go in, and what is to be done about them comes out. What is to be seen of it is ``prompt``, ``text`` and
/// ``cursor``.
public struct LineEditor: Sendable {
  /// What a key asks for beyond a change of the line.
  public enum Outcome: Equatable, Sendable {
    /// The line may be another one now, or the cursor elsewhere.
    case edited
    /// There was nothing to do.
    case refused
    /// The line is finished. The next begins empty.
    case accepted(String)
    /// Ctrl-C: the line is given up. The next begins empty.
    case interrupted
    /// Ctrl-D on an empty line.
    case ended
    /// Ctrl-Z.
    case suspended
    /// Ctrl-L.
    case clearsScreen
    /// These could stand at the cursor.
    case offers([String])
  }

  /// The longest line, in characters.
  public static let longest = 16384
  private static let mostUndos = 64

  private let basePrompt: String
  private var line: [Character] = []
  private var position = 0
  private var history: History
  /// Which line of the history is shown, and what was being typed before.
  private var recalled: Int?
  private var draft: [Character] = []
  /// What Ctrl-Y brings back.
  private var killed: [Character] = []
  private var undos: [(line: [Character], position: Int)] = []
  /// The key before, as far as it matters.
  private enum Before { case other, typing, tab }
  private var before = Before.other
  /// The search under way.
  private var search: Search?

  private struct Search {
    var query: [Character] = []
    /// The line of the history that is shown.
    var match: Int?
    var hasFailed = false
    let line: [Character]
    let position: Int
  }

  public init(prompt: String, history: History = History()) {
    basePrompt = prompt
    self.history = history
  }

  // MARK: what is to be seen

  /// What stands before the line.
  public var prompt: String {
    guard let search else { return basePrompt }
    return "(\(search.hasFailed ? "not found" : "search") '\(String(search.query).escapedForTerminal)') "
  }
  /// The line, as it was typed.
  public var text: String { String(line) }
  /// How many characters are before the cursor.
  public var cursor: Int { position }
  /// The line as it can be shown, in two parts: before the cursor and behind it.
  var shown: (before: String, behind: String) {
    (String(line[..<position]).escapedForTerminal(atMost: .max), String(line[position...]).escapedForTerminal(atMost: .max))
  }

  // MARK: keys

  /// Takes in a key.
  ///
  /// - Parameter completing: tells what could stand at the end of a text, which is the line up to the cursor.
  public mutating func handle(_ key: Key, completing: (String) -> LineCompletion = { _ in .none }) -> Outcome {
    if search != nil, let outcome = handleInSearch(key) { return outcome }
    let previous = before
    before = .other
    switch key {
    case .text(let scalar): return insert(String(scalar), after: previous)
    case .paste(let text): return insert(text, after: .other)
    case .enter: return accept()
    case .tab:
      before = .tab
      return complete(completing(String(line[..<position])), again: previous == .tab)
    case .backspace, .control("h"): return delete(from: position - 1, to: position)
    case .delete: return delete(from: position, to: position + 1)
    case .left, .control("b"): return move(to: position - 1)
    case .right, .control("f"): return move(to: position + 1)
    case .home, .control("a"): return move(to: 0)
    case .end, .control("e"): return move(to: line.count)
    case .wordLeft, .alt("b"): return move(to: wordStart)
    case .wordRight, .alt("f"): return move(to: wordEnd)
    case .up, .control("p"): return recall((recalled ?? history.lines.count) - 1)
    case .down, .control("n"): return recall((recalled ?? history.lines.count) + 1)
    case .control("r"):
      search = Search(line: line, position: position)
      return .edited
    case .control("k"): return kill(from: position, to: line.count)
    case .control("u"): return kill(from: 0, to: position)
    case .control("w"): return kill(from: blankStart, to: position)
    case .alt("\u{7F}"): return kill(from: wordStart, to: position)
    case .alt("d"): return kill(from: position, to: wordEnd)
    case .control("y"): return killed.isEmpty ? .refused : insert(String(killed), after: .other)
    case .control("t"): return transpose()
    case .control("_"): return undo()
    case .control("l"): return .clearsScreen
    case .control("c"):
      reset()
      return .interrupted
    case .control("d"): return line.isEmpty ? .ended : delete(from: position, to: position + 1)
    case .control("z"): return .suspended
    case .control, .alt, .backTab, .escape, .pageUp, .pageDown, .unknown: return .refused
    }
  }

  private mutating func reset() {
    line = []
    position = 0
    undos = []
    recalled = nil
    draft = []
    search = nil
  }

  private mutating func accept() -> Outcome {
    let text = self.text
    reset()
    if !text.allSatisfy(\.isWhitespace) { history.add(text) }
    return .accepted(text)
  }

  // MARK: changes

  private mutating func change(_ line: [Character], _ position: Int) -> Outcome {
    undos.append((self.line, self.position))
    if undos.count > Self.mostUndos { undos.removeFirst() }
    self.line = line
    self.position = position
    return .edited
  }

  /// Puts in what was typed or pasted; what would end the line, or a column of it, is a blank.
  private mutating func insert(_ text: String, after previous: Before) -> Outcome {
    let blanked = text.map { $0.isNewline || $0 == "\t" ? " " : $0 }
    // A mark goes on the letter before it, and is no character of its own.
    var before = line[..<position]
    var added = blanked
    if let last = before.last, let first = added.first {
      let joined = String(last) + String(first)
      if joined.count == 1 {
        before.removeLast()
        added[0] = Character(joined)
      }
    }
    guard before.count + added.count + line.count - position <= Self.longest else { return .refused }
    let isTyping = added.count == 1 && text != " "
    self.before = isTyping ? .typing : .other
    let changed = Array(before + added + line[position...])
    // A word is undone at once.
    guard isTyping, previous == .typing else { return change(changed, before.count + added.count) }
    line = changed
    position = before.count + added.count
    return .edited
  }

  private mutating func delete(from start: Int, to end: Int) -> Outcome {
    guard start >= 0, end <= line.count, start < end else { return .refused }
    return change(Array(line[..<start] + line[end...]), start)
  }

  private mutating func kill(from start: Int, to end: Int) -> Outcome {
    guard start < end else { return .refused }
    killed = Array(line[start..<end])
    return delete(from: start, to: end)
  }

  private mutating func transpose() -> Outcome {
    guard line.count > 1, position > 0 else { return .refused }
    let second = min(position, line.count - 1)
    var line = self.line
    line.swapAt(second - 1, second)
    return change(line, second + 1)
  }

  private mutating func undo() -> Outcome {
    guard let last = undos.popLast() else { return .refused }
    (line, position) = last
    return .edited
  }

  private mutating func complete(_ completion: LineCompletion, again: Bool) -> Outcome {
    let start = position - completion.replaced
    let common =
      completion.candidates.count == 1 ? completion.candidates[0].text + completion.candidates[0].suffix : completion.commonPrefix
    guard !completion.candidates.isEmpty, start >= 0 else { return .refused }
    let text = Array(common)
    if text != Array(line[start..<position]), text.count >= completion.replaced {
      guard start + text.count + line.count - position <= Self.longest else { return .refused }
      return change(Array(line[..<start] + text + line[position...]), start + text.count)
    }
    return again && completion.candidates.count > 1 ? .offers(completion.candidates.map(\.text)) : .refused
  }

  // MARK: movements

  private mutating func move(to target: Int) -> Outcome {
    guard (0...line.count).contains(target), target != position else { return .refused }
    position = target
    return .edited
  }

  private static func isWord(_ character: Character) -> Bool { character.isLetter || character.isNumber }

  /// Where the word begins that ends before the cursor.
  private var wordStart: Int {
    let word = line[..<position].lastIndex(where: Self.isWord) ?? 0
    return line[..<word].lastIndex { !Self.isWord($0) }.map { $0 + 1 } ?? 0
  }

  /// Where the word ends that begins behind the cursor.
  private var wordEnd: Int {
    let word = line[position...].firstIndex(where: Self.isWord) ?? line.count
    return line[word...].firstIndex { !Self.isWord($0) } ?? line.count
  }

  /// Where what ends before the cursor begins, told by blanks.
  private var blankStart: Int {
    let word = line[..<position].lastIndex { !$0.isWhitespace } ?? 0
    return line[..<word].lastIndex(where: \.isWhitespace).map { $0 + 1 } ?? 0
  }

  // MARK: history

  private mutating func recall(_ index: Int) -> Outcome {
    guard (0...history.lines.count).contains(index), index != recalled ?? history.lines.count else { return .refused }
    if recalled == nil { draft = line }
    recalled = index < history.lines.count ? index : nil
    let line = recalled.map { Array(history.lines[$0]) } ?? draft
    return change(line, line.count)
  }

  /// - Returns: nil if the key ends the search, and then does what it always does.
  private mutating func handleInSearch(_ key: Key) -> Outcome? {
    guard var search else { return nil }
    switch key {
    case .text(let scalar): search.query.append(Character(scalar))
    case .backspace, .control("h"):
      guard search.query.popLast() != nil else { return .refused }
      search.match = nil
    case .control("r"): break
    case .control("g"), .control("c"), .escape:
      self.search = nil
      (line, position) = (search.line, search.position)
      return .edited
    default:
      self.search = nil
      recalled = search.match
      draft = search.line
      return nil
    }
    // A longer text may be in the line that is shown; the same text again is looked for in the lines before.
    let end = search.match.map { key == .control("r") ? $0 : $0 + 1 } ?? history.lines.count
    let query = String(search.query)
    let found = query.isEmpty ? nil : history.lines[..<end].lastIndex { $0.contains(query) }
    search.hasFailed = found == nil && !query.isEmpty
    if let found {
      search.match = found
      line = Array(history.lines[found])
      // Where it was found.
      position =
        history.lines[found].firstRange(of: query).map {
          history.lines[found].distance(from: history.lines[found].startIndex, to: $0.lowerBound)
        } ?? 0
    } else if query.isEmpty {
      (line, position) = (search.line, search.position)
    }
    self.search = search
    return search.hasFailed ? .refused : .edited
  }
}
