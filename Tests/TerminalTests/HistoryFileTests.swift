import Glibc
import SystemPackage
import Terminal
import TestSupport
import Testing

@Suite("the file of the history")
struct HistoryFileTests {
  private static func mode(_ path: FilePath) -> CInterop.Mode {
    var status = stat()
    return stat(path.string, &status) == 0 ? status.st_mode & 0o777 : 0
  }

  @Test("lines come back, in a file and folders that are the user's alone")
  func roundTrip() throws {
    let folder = try TemporaryFolder()
    defer { withExtendedLifetime(folder) {} }
    let path = folder.path.appending("state/qmpctl/history")
    let file = HistoryFile(at: path)
    #expect(try file.read() == [])
    try file.append("one")
    try HistoryFile(at: path).append("two\nlines é")
    #expect(try file.read() == ["one", "two lines é"])
    #expect(Self.mode(path) == 0o600)
    #expect(Self.mode(path.removingLastComponent()) == 0o700 && Self.mode(path.removingLastComponent().removingLastComponent()) == 0o700)
    chmod(path.string, 0o644)
    try file.append("three")
    #expect(Self.mode(path) == 0o600)
  }

  @Test("a file that has grown is cut, and the newest lines stay")
  func bound() throws {
    let folder = try TemporaryFolder()
    defer { withExtendedLifetime(folder) {} }
    let lines = (0...2 * History.most).map { "line \($0)" }
    let path = try folder.file("history", Array((lines.joined(separator: "\n") + "\n").utf8))
    #expect(try HistoryFile(at: path).read() == lines.suffix(History.most))
    #expect(contents(of: path).split(separator: "\n").count == History.most)
    // Of a file without line ends nothing is known but that it is long.
    let huge = try folder.file("huge", repeatElement(UInt8(ascii: "x"), count: 3 << 20))
    #expect(try HistoryFile(at: huge).read() == [])
  }

  @Test("what cannot be is an error")
  func errors() throws {
    let folder = try TemporaryFolder()
    defer { withExtendedLifetime(folder) {} }
    let file = try folder.file("file", [])
    #expect(throws: Errno.self) { try HistoryFile(at: file.appending("history")).append("x") }
    #expect(throws: Errno.self) { try HistoryFile(at: folder.path).read() }
  }
}
