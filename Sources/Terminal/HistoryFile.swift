import Glibc
public import SystemPackage
import SystemdEvent

/// Where lines that were entered are kept from one run of a program to the next: a file that only its user can read.
///
/// Several processes may use it at once: each appends whole lines.
public struct HistoryFile: Sendable {
  public let path: FilePath
  /// How many bytes of it are read, from the end.
  private static let longestRead = 1 << 20

  public init(at path: FilePath) { self.path = path }

  /// The file of a program in `$XDG_STATE_HOME` (XDG Base Directory Specification); nil if there is no such folder, nor a home.
  public init?(of program: String) {
    func folder(_ name: String) -> FilePath? {
      guard let value = getenv(name).map({ FilePath(String(cString: $0)) }), value.isAbsolute else { return nil }
      return value
    }
    guard let state = folder("XDG_STATE_HOME") ?? folder("HOME")?.appending(".local/state") else { return nil }
    path = state.appending(program).appending("history")
  }

  /// The lines, oldest first. A file that has grown long is cut.
  ///
  /// - Throws: what the kernel says; that there is no file is no error.
  public func read() throws(Errno) -> [String] {
    let lines: [String]
    do {
      let file = try FileDescriptor.open(path, .readOnly)
      lines = try file.closeAfter {
        let size = try file.seek(offset: 0, from: .end)
        let start = max(0, size - Int64(Self.longestRead))
        try file.seek(offset: start, from: .start)
        let bytes = try Self.contents(of: file)
        // What was cut in the middle is no line.
        let whole = start > 0 ? bytes.drop { $0 != UInt8(ascii: "\n") } : bytes[...]
        return whole.split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
      }
    } catch Errno.noSuchFileOrDirectory {
      return []
    } catch {
      throw error as? Errno ?? .ioError
    }
    if lines.count > 2 * History.most { try replace(lines.suffix(History.most)) }
    return lines.suffix(History.most)
  }

  /// Adds a line; makes the file and its folders if they are missing.
  public func append(_ line: String) throws(Errno) {
    try makeFolders()
    try Self.write(line.singleLine + "\n", to: path, options: [.create, .append])
  }

  private func replace(_ lines: some Sequence<String>) throws(Errno) {
    let new = FilePath(path.string + ".\(getpid())")
    try Self.write(lines.map { $0 + "\n" }.joined(), to: new, options: [.create, .truncate])
    guard rename(new.string, path.string) == 0 else { throw Errno(rawValue: errno) }
  }

  private func makeFolders() throws(Errno) {
    var missing: [FilePath] = []
    var folder = path.removingLastComponent()
    while !folder.isEmpty, access(folder.string, F_OK) != 0, folder.removingLastComponent() != folder {
      missing.append(folder)
      folder = folder.removingLastComponent()
    }
    for folder in missing.reversed() where mkdir(folder.string, 0o700) != 0 && errno != EEXIST { throw Errno(rawValue: errno) }
  }

  private static func write(_ text: String, to path: FilePath, options: FileDescriptor.OpenOptions) throws(Errno) {
    do {
      let file = try FileDescriptor.open(path, .writeOnly, options: options, permissions: .ownerReadWrite)
      try file.closeAfter {
        // It may have been there before, readable for others.
        guard fchmod(file.rawValue, 0o600) == 0 else { throw Errno(rawValue: errno) }
        _ = try file.writeAll(text.utf8)
      }
    } catch {
      throw error as? Errno ?? .ioError
    }
  }

  private static func contents(of file: FileDescriptor) throws -> [UInt8] {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = try buffer.withUnsafeMutableBytes { try file.read(into: $0) }
      guard count > 0 else { return bytes }
      bytes += buffer[..<count]
    }
  }
}

extension String {
  /// The text with blanks for what would end the line.
  fileprivate var singleLine: String { String(map { $0.isNewline ? " " : $0 }) }
}
