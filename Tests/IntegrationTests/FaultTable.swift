import Foundation
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// The table in `docs/faults.md`. The tests that try its rows are held against it, and write down how long its callers waited.
enum FaultTable {
  static let document = "docs/faults.md"
  /// The bound of callers whom no limit of the daemon's keeps.
  static let atOnce = "at once"
  /// What "at once" must not reach: the shortest time in which a caller would be told that nobody answers (`--response-limit`). How much
  /// shorter it is depends on the machine, and is no test's business.
  static let patience = Duration.seconds(10)

  struct Row {
    let fault: String
    /// What callers wait for at the most: ``atOnce``, or a limit of the daemon's.
    let bound: String
    /// The order of magnitude of what was measured, beyond the bound.
    let longest: String
    /// `Suite.function`, that which measures first.
    let tests: [String]
  }

  static func rows() throws -> [Row] {
    let text = contents(of: try Guest.repositoryRoot().appending(document))
    return text.split(separator: "\n").compactMap { line in
      let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
      guard line.hasPrefix("|"), cells.count == 6, !cells[0].hasPrefix("---"), cells[0] != "what fails" else { return nil }
      return Row(fault: cells[0], bound: cells[2], longest: cells[3], tests: cells[5].matches(of: /`([^`]+)`/).map { String($0.output.1) })
    }
  }

  /// Notes how long the callers of a row waited, where the environment says so (`make faults`).
  fileprivate static func note(_ test: String, _ waited: Duration) throws {
    guard let path = ProcessInfo.processInfo.environment["QMP_VARLINK_FAULT_FIGURES"] else { return }
    let file = try FileDescriptor.open(
      path, .writeOnly, options: [.create, .append], permissions: [.ownerReadWrite, .groupRead, .otherRead])
    defer { try? file.close() }
    try file.writeAll("\(test) \(waited / .seconds(1))\n".utf8)
  }
}

/// Times how long callers wait until they know what has become of what they asked for, in a test of a row of ``FaultTable``.
///
/// - Parameter limit: the daemon's limit that decides it, as the test has set it; zero where they are to know at once.
@EventLoopActor
func known<Result>(
  within limit: Duration = .zero, file: String = #fileID, function: String = #function, _ body: @EventLoopActor () async throws -> Result
) async throws -> Result {
  let start = ContinuousClock.now
  let result = try await body()
  let waited = ContinuousClock.now - start
  let test = "\(FilePath(file).stem ?? "").\(function.prefix { $0 != "(" })"
  let row = try #require(try FaultTable.rows().first { $0.tests.contains(test) }, "\(FaultTable.document) has no row for \(test)")
  #expect((row.bound == FaultTable.atOnce) == (limit == .zero), "\(test): the table says '\(row.bound)'")
  #expect(waited < limit + FaultTable.patience, "\(test): \(row.fault)")
  try FaultTable.note(test, waited - limit)
  return result
}

@Suite("the table of faults") struct FaultTableTests {
  @Test("each row has been measured within its bound, by a test that there is")
  func rows() throws {
    let rows = try FaultTable.rows()
    #expect(rows.count > 30)
    let root = try Guest.repositoryRoot().appending("Tests")
    let files = try FileManager.default.subpathsOfDirectory(atPath: root.string).filter { $0.hasSuffix("Tests.swift") }
    for row in rows {
      #expect(row.bound == FaultTable.atOnce || row.bound.contains(/^`--[a-z-]+`$|^[0-9]+ s$/), "\(row.fault): \(row.bound)")
      #expect(row.longest.contains(/^(\+ )?< [0-9]+ m?s$/), "\(row.fault): \(row.longest)")
      #expect(row.longest != "< 100 s" && row.longest != "+ < 100 s", "\(row.fault): \(row.longest)")
      #expect(!row.tests.isEmpty, "\(row.fault)")
      for test in row.tests {
        let parts = test.split(separator: ".")
        // Two modules may have a suite of that name.
        let sources = files.filter { FilePath($0).lastComponent?.string == "\(parts[0]).swift" }.map { contents(of: root.appending($0)) }
        #expect(sources.contains { $0.contains("struct \(parts[0]) ") && $0.contains(" func \(parts[1])(") }, "\(test)")
      }
    }
  }

  @Test("each measurement has a row")
  func measurements() throws {
    let named = Set(try FaultTable.rows().flatMap(\.tests))
    let folder = try Guest.repositoryRoot().appending("Tests/IntegrationTests")
    for file in try FileManager.default.subpathsOfDirectory(atPath: folder.string) where file.hasSuffix("Tests.swift") {
      let suite = FilePath(file).stem ?? ""
      var function = ""
      for line in contents(of: folder.appending(file)).split(separator: "\n") {
        // Those of the suite; a test may have functions of its own.
        if let name = line.firstMatch(of: /^\ \ [^\ ].*\bfunc ([A-Za-z]+)|^\ \ func ([A-Za-z]+)/) {
          function = String(name.1 ?? name.2 ?? "")
        }
        if line.contains(/try await known(\(within| \{)/) { #expect(named.contains("\(suite).\(function)"), "\(suite).\(function)") }
      }
    }
  }
}
