import Control
import Testing

@Suite struct TableTests {
  @Test("columns are aligned, and the last has no spaces behind it")
  func alignment() {
    var table = Table(["NAME": .left, "N": .right, "WHERE": .left])
    table.add([Table.Cell("web"), Table.Cell("7"), Table.Cell("here")])
    table.add([Table.Cell("a-long-name"), Table.Cell(nil), Table.Cell("there")])
    #expect(table.text(Style(hasColors: false)) == "NAME        N WHERE\nweb         7 here\na-long-name - there\n")
    #expect(table.text(Style(hasColors: false), hasLegend: false) == "web         7 here\na-long-name - there\n")
  }

  @Test("colours do not count for the width, and text from elsewhere makes none")
  func colors() {
    var table = Table(["A": .left, "B": .left])
    table.add([Table.Cell("x", .bad), Table.Cell("\u{1B}[31my\n")])
    #expect(table.text(Style(hasColors: true), hasLegend: false) == "\u{1B}[31mx\u{1B}[0m \\u001b[31my\\n\n")
  }

  @Test(
    "colours are for terminals that have them, and for those who want them",
    arguments: [
      (true, nil, "xterm", true), (false, nil, "xterm", false), (true, "1", "xterm", false), (true, "", "xterm", true),
      (true, nil, "dumb", false), (true, nil, nil, true),
    ] as [(Bool, String?, String?, Bool)])
  func style(isTerminal: Bool, noColor: String?, terminal: String?, expected: Bool) {
    let environment = ["NO_COLOR": noColor, "TERM": terminal]
    #expect(Style.standard(isTerminal: isTerminal) { environment[$0] ?? nil }.hasColors == expected)
  }
}
