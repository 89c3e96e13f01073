import Terminal
import Testing

@Suite("the line editor")
struct LineEditorTests {
  /// What is in brackets is a key by name; the rest is typed.
  static func keys(_ script: String) -> [Key] {
    let named: [String: Key] = [
      "left": .left, "right": .right, "home": .home, "end": .end, "up": .up, "down": .down, "bs": .backspace, "del": .delete,
      "tab": .tab, "enter": .enter, "esc": .escape, "wleft": .wordLeft, "wright": .wordRight, "M-bs": .alt("\u{7F}"),
    ]
    var keys: [Key] = []
    var rest = script[...]
    while let character = rest.first {
      guard character == "<", let end = rest.firstIndex(of: ">") else {
        keys += String(rest.removeFirst()).unicodeScalars.map { .text($0) }
        continue
      }
      let name = String(rest[rest.index(after: rest.startIndex)..<end])
      rest = rest[rest.index(after: end)...]
      if name.hasPrefix("C-") {
        keys.append(.control(name.last ?? " "))
      } else if name.hasPrefix("paste:") {
        keys.append(.paste(String(name.dropFirst(6))))
      } else if let key = named[name] {
        keys.append(key)
      } else if let scalar = name.unicodeScalars.last {
        keys.append(.alt(scalar))
      }
    }
    return keys
  }

  static let words = ["query-block", "query-blockstats", "query-name", "quit", "über"]

  static func complete(_ text: String) -> LineCompletion {
    let typed = text.split(separator: " ", omittingEmptySubsequences: false).last.map(String.init) ?? ""
    return LineCompletion(of: typed, among: words.map { .init($0) })
  }

  /// The line with `|` at the cursor, and the outcome of the last key.
  static func run(_ script: String, history: [String] = ["first one", "second", "first two"]) -> (
    line: String, outcome: LineEditor.Outcome, prompt: String
  ) {
    var editor = LineEditor(prompt: "> ", history: History(history))
    var outcome = LineEditor.Outcome.edited
    for key in keys(script) { outcome = editor.handle(key, completing: complete) }
    let characters = Array(editor.text)
    return (String(characters[..<editor.cursor]) + "|" + String(characters[editor.cursor...]), outcome, editor.prompt)
  }

  @Test(
    "keys make a line",
    arguments: [
      ("abc", "abc|"), ("ac<left>b", "ab|c"), ("bc<home>a<end>d", "abcd|"), ("abc<C-a><C-f><C-k>", "a|"), ("abc<C-b><C-u>", "|c"),
      ("abc<bs><left><del>", "a|"), ("abc<C-a><C-d>", "|bc"), ("<bs><left><right><del>", "|"),
      ("one two-three <C-w>", "one |"), ("one two<left><C-w>", "one |o"), ("  <C-w>", "|"),
      ("one two-three<M-bs>", "one two-|"), ("one two<M-b>x", "one x|two"), ("one two<home><M-f>x", "onex| two"),
      ("one two<wleft><wleft><wright>x", "onex| two"), ("one two<home><M-d>", "| two"),
      ("one two<C-w><C-y><C-y>", "one twotwo|"), ("one<C-u><C-y>!", "one!|"),
      ("ab<C-t>", "ba|"), ("abc<home><C-t>", "|abc"), ("abc<left><C-t>", "acb|"), ("abc<home><right><C-t>", "ba|c"),
      ("héllo日本<left><bs>x", "héllox|本"),
      // A mark goes on the letter before it; alone it is a character.
      ("e\u{301}x<bs><bs>", "|"), ("\u{301}a", "\u{301}a|"),
      ("a<paste:b\nc\td>e", "ab c de|"),
      ("one two<C-_>", "one |"), ("one two<C-_><C-_>", "one|"), ("abc<C-u><C-_>", "abc|"), ("<C-_>", "|"),
      ("ab<left>c<bs><C-_><C-_>", "a|b"),
    ])
  func editing(script: String, line: String) {
    #expect(Self.run(script).line == line)
  }

  @Test(
    "the history goes up and down, and back to what was being typed",
    arguments: [
      ("<up>", "first two|"), ("<up><up>", "second|"), ("<up><up><up><up>", "first one|"), ("<up><down>", "|"),
      ("new<up><up><down><down>", "new|"),
      ("<C-p><C-p><C-n>", "first two|"), ("<down>", "|"), ("entered<enter><up>", "entered|"), ("<up><enter><up><up>", "second|"),
      (" <enter><up>", "first two|"), ("<up>x<up><down>", "first two|"),
    ])
  func history(script: String, line: String) {
    #expect(Self.run(script).line == line)
  }

  @Test(
    "a search shows the newest line that has the text, then older ones",
    arguments: [
      ("<C-r>fir", "|first two", "(search 'fir') "), ("<C-r>fir<C-r>", "|first one", "(search 'fir') "),
      ("<C-r>o<C-r>", "sec|ond", "(search 'o') "),
      ("<C-r>fir<C-r><C-r>", "|first one", "(not found 'fir') "), ("<C-r>x", "|", "(not found 'x') "),
      ("<C-r>secx<bs>", "|second", "(search 'sec') "),
      ("abc<C-r>sec<esc>", "abc|", "> "), ("abc<C-r>sec<C-c>", "abc|", "> "), ("<C-r>sec<end>!", "second!|", "> "),
      ("<C-r>sec<up>", "first one|", "> "),
      ("<C-r>", "|", "(search '') "), ("abc<C-r>one<bs><bs><bs>", "abc|", "(search '') "),
    ])
  func search(script: String, line: String, prompt: String) {
    let result = Self.run(script)
    #expect(result.line == line)
    #expect(result.prompt == prompt)
  }

  @Test(
    "Tab completes as far as it is clear, and lists when pressed again",
    arguments: [
      ("qui<tab>", "quit |", .edited), ("q<tab>", "qu|", .edited),
      ("q<tab><tab>", "qu|", .offers(["query-block", "query-blockstats", "query-name", "quit"])),
      ("q<tab>e<tab>", "query-|", .edited), ("query-b<tab>", "query-block|", .edited), ("query-block<tab>", "query-block|", .refused),
      ("query-block<tab><tab>", "query-block|", .offers(["query-block", "query-blockstats"])),
      ("query-name<tab>", "query-name |", .edited), ("x<tab><tab>", "x|", .refused), ("ü<tab>", "über |", .edited),
      ("qui x<left><left><tab>", "quit | x", .edited), ("a qui<tab>", "a quit |", .edited),
    ] as [(String, String, LineEditor.Outcome)])
  func completion(script: String, line: String, outcome: LineEditor.Outcome) {
    let result = Self.run(script)
    #expect(result.line == line)
    #expect(result.outcome == outcome)
  }

  @Test(
    "what a key asks for",
    arguments: [
      ("abc<enter>", .accepted("abc")), ("<enter>", .accepted("")), ("<C-r>sec<enter>", .accepted("second")), ("abc<C-c>", .interrupted),
      ("<C-d>", .ended), ("abc<C-d>", .refused), ("abc<C-l>", .clearsScreen), ("abc<C-z>", .suspended), ("<esc>", .refused),
      ("<C-y>", .refused),
    ] as [(String, LineEditor.Outcome)])
  func outcomes(script: String, outcome: LineEditor.Outcome) {
    #expect(Self.run(script).outcome == outcome)
  }

  @Test("a line has an end, and so has the history")
  func bounds() {
    var editor = LineEditor(prompt: "> ")
    let long = String(repeating: "x", count: LineEditor.longest)
    #expect(editor.handle(.paste(long)) == .edited)
    #expect(editor.handle(.text("y")) == .refused)
    #expect(editor.handle(.paste("y")) == .refused)
    #expect(editor.text == long)
    var history = History((0..<2 * History.most).map(String.init))
    #expect(history.lines.count == History.most)
    let added = [history.add("new"), history.add("new")]
    #expect(added == [true, false])
    #expect(history.lines.count == History.most && history.lines.last == "new")
  }
}
