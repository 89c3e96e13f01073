import Terminal
import TestSupport
import Testing

@Suite("drawing a line")
struct LineDisplayTests {
  /// Draws on a screen that has something above.
  private static func screen(_ columns: Int, _ lines: [(before: String, behind: String)]) -> Screen {
    let size = TerminalSize(columns: columns, rows: 12)
    var screen = Screen(size)
    screen.write("above\r\n")
    var display = LineDisplay(size: size)
    for line in lines { screen.write(display.draw(prompt: "> ", before: line.before, behind: line.behind)) }
    return screen
  }

  @Test(
    "the line is where it should be, and so is the cursor",
    arguments: [
      ("", "", ["> "], 0, 2), ("abc", "", ["> abc"], 0, 5), ("a", "bc", ["> abc"], 0, 3),
      ("abcdefg", "", ["> abcdefg"], 0, 9), ("abcdefgh", "", ["> abcdefgh", ""], 1, 0), ("abcdefghi", "", ["> abcdefgh", "i"], 1, 1),
      ("abcdefgh", "i", ["> abcdefgh", "i"], 1, 0), ("abcdefg", "hi", ["> abcdefgh", "i"], 0, 9),
      ("a", "bcdefghijklmnopqrstu", ["> abcdefgh", "ijklmnopqr", "stu"], 0, 3),
      ("abcdefghijklmnopqr", "", ["> abcdefgh", "ijklmnopqr", ""], 2, 0),
      // What is wide goes to the next row when half of it has room.
      ("日本語日", "本", ["> 日本語日", "本"], 1, 0), ("a日本語日", "", ["> a日本語", "日"], 1, 2), ("e\u{301}e\u{301}", "x", ["> e\u{301}e\u{301}x"], 0, 4),
    ] as [(String, String, [String], Int, Int)])
  func places(before: String, behind: String, rows: [String], row: Int, column: Int) {
    let screen = Self.screen(10, [(before, behind)])
    #expect(screen.rows.prefix(1 + rows.count).elementsEqual(["above"] + rows.map { $0 == "> " ? ">" : $0 }), "\(screen.rows)")
    #expect(screen.row == 1 + row && screen.column == column, "\(screen.row) \(screen.column)")
  }

  @Test("drawn again and again it leaves no trace of what was before", arguments: 0..<40 as Range<UInt64>)
  func redrawing(seed: UInt64) {
    var random = SplitMix(seed: seed)
    let letters = ["a", "b", "日", "é", "e\u{301}", "-", " ", "😀"]
    func text() -> String { (0..<Int.random(in: 0..<24, using: &random)).map { _ in letters.pick(&random) }.joined() + "." }
    let lines = (0..<20).map { _ in (before: text(), behind: text()) }
    let columns = Int.random(in: 7..<30, using: &random)
    let drawn = Self.screen(columns, lines)
    let fresh = Self.screen(columns, [lines[lines.count - 1]])
    // A long line may have scrolled.
    let end = { (screen: Screen) in Array(screen.rows.drop { $0 == "above" }.reversed().drop { $0.isEmpty }.reversed()) }
    #expect(end(drawn) == end(fresh), "\(drawn.rows) \(fresh.rows)")
    #expect(drawn.column == fresh.column)
    #expect(drawn.rows[drawn.row] == fresh.rows[fresh.row])
  }

  @Test("text that comes stands above the line, which is whole below it", arguments: [7, 10, 25, 80])
  func above(columns: Int) {
    let size = TerminalSize(columns: columns, rows: 12)
    var screen = Screen(size)
    var display = LineDisplay(size: size)
    screen.write(display.draw(prompt: "> ", before: "abcdefghij", behind: "klmnopqrstuvw"))
    screen.write(display.erase() + "event\r\n" + display.draw(prompt: "> ", before: "abcdefghij", behind: "klmnopqrstuvw"))
    #expect(screen.rows.first == "event")
    #expect(screen.rows.dropFirst().joined() == "> abcdefghijklmnopqrstuvw")
    #expect(screen.cells[screen.row][screen.column] == "k")
    screen.write(display.leave() + "next")
    #expect(screen.rows.last { !$0.isEmpty } == "next")
    #expect(screen.rows.joined() == "event> abcdefghijklmnopqrstuvwnext")
  }

  @Test("a line that is longer than the screen shows its part around the cursor")
  func tooLong() {
    let size = TerminalSize(columns: 10, rows: 12)
    var screen = Screen(size)
    var display = LineDisplay(size: size)
    let long = String(repeating: "x", count: 5000)
    for _ in 0..<3 { screen.write(display.draw(prompt: "> ", before: long + "end", behind: "rest" + long)) }
    #expect(screen.rows.first?.hasPrefix("> …xxx") == true, "\(screen.rows)")
    #expect(screen.rows.joined().contains("xendrestx"))
    #expect(screen.cells[screen.row][screen.column] == "r")
  }
}
