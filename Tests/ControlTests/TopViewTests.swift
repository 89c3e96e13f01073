import Terminal
import Testing

@testable import qmpctl

@Suite("what top shows")
struct TopViewTests {
  @Test(
    "bytes in at most five characters",
    arguments: [
      (0, "0"), (1, "1"), (999, "999"), (999.6, "1.0K"), (1000, "1.0K"), (1024, "1.0K"), (1536, "1.5K"), (102_400, "100K"),
      (1_022_976, "999K"),
      (1_048_576, "1.0M"), (1.5e9, "1.4G"), (-5, "0"), (Double(Int64.max), "8192P"),
    ] as [(Double, String)])
  func bytes(number: Double, text: String) {
    #expect(TopView.bytes(number) == text)
  }

  @Test(
    "milliseconds",
    arguments: [
      (Duration.zero, "0.0ms"), (.microseconds(49), "0.0ms"), (.microseconds(50), "0.1ms"), (.milliseconds(12), "12.0ms"),
      (.seconds(2), "2000.0ms"),
    ])
  func milliseconds(duration: Duration, text: String) {
    #expect(TopView.milliseconds(duration) == text)
  }

  @Test("columns are aligned, cut to the width, and harmless")
  func grid() {
    var grid = Grid([("NAME", .left), ("COUNT", .right)])
    grid.add([("日本", nil), ("5", nil)])
    grid.add([("\u{1B}[2J", nil), ("123456", nil)])
    let plain = Looks(areOn: false)
    #expect(grid.lines(plain, nil) == ["NAME       COUNT", "日本           5", "\\u001b[2J 123456"])
    for width in 0...20 {
      #expect(grid.lines(plain, width).allSatisfy { $0.terminalWidth == min(width, 16) }, "\(width)")
    }
    var long = Grid([("NAME", .left)])
    long.add([(String(repeating: "x", count: 300), .red)])
    #expect(long.lines(Looks(areOn: true), nil).last == "\u{1B}[31m" + String(repeating: "x", count: 31) + "…\u{1B}[0m")
  }
}
