import Foundation
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// A short form of `make soak`, and whether its rule finds what it is for.
@Suite("the soak", .onEventLoop, .serialized)
struct SoakTests {
  private static let folder = "Tests/Soak"

  @Test("20 seconds of all callers at once leave no trace; figures and a chart of them are there") @EventLoopActor
  func short() async throws {
    try await withTemporaryDirectory { output in
      let result = try await command(
        try Guest.repositoryRoot().appending("\(Self.folder)/run").string,
        ["--time", "20", "--daemon", productsDirectory.appending("qmp-varlinkd").string, "--output", output.string])
      #expect(result.status == 0, "\(result.output)\(result.error)\(contents(of: output.appending("daemon.log")).suffix(2000))")
      // What is printed has the seed.
      print(result.output.split(separator: "\n").last ?? "")
      #expect(contents(of: output.appending("samples.jsonl")).split(separator: "\n").count > 4, "a sample a second, or less on a busy host")
      #expect(contents(of: output.appending("summary.json")).contains(#""findings": []"#))
      let chart = contents(of: output.appending("chart.svg"))
      #expect(chart.hasSuffix("</svg>\n") && chart.components(separatedBy: "<polyline").count > 15, "\(chart.prefix(500))")
    }
  }

  @Test("what leaks is found, and what is noise is not") @EventLoopActor
  func rule() async throws {
    let folder = try Guest.repositoryRoot().appending(Self.folder).string
    let result = try await command("env", ["-C", folder, "python3", "-B", "-m", "unittest", "soak.test_trend"])
    #expect(result.status == 0 && result.error.contains("Ran 14 tests"), "\(result.error)")
  }

  @Test("the samples of a daemon that leaks fail, and those of one that does not pass", arguments: [0, 200_000]) @EventLoopActor
  func judging(leak: Int) async throws {
    try await withTemporaryDirectory { folder in
      let samples = folder.appending("samples.jsonl")
      let lines = (0..<120).map { #"{"time": \#($0), "daemon_rss": \#(30_000_000 + $0 * leak + $0 % 7 * 40_000), "fdsets": 0}"# + "\n" }
      try lines.joined().write(toFile: samples.string, atomically: false, encoding: .utf8)
      let judging = ["--judge", samples.string, "--output", folder.string]
      let result = try await command(try Guest.repositoryRoot().appending("\(Self.folder)/run").string, judging)
      #expect(result.status == (leak > 0 ? 1 : 0), "\(result.output)\(result.error)")
      #expect(result.output.contains("\(leak > 0 ? "RISES " : "level ") daemon_rss"), "\(result.output)")
      #expect(contents(of: folder.appending("chart.svg")).contains("RISES") == (leak > 0))
    }
  }
}
