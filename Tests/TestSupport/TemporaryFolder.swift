import Foundation
import Glibc
public import SystemPackage

/// A folder that is removed, with all that is in it, when its last owner lets go of it.
public final class TemporaryFolder: Sendable {
  public let path: FilePath

  public init() throws {
    var template = Array("/tmp/qmp-varlink-unit-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Errno(rawValue: errno) }
    path = FilePath(String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
  }

  deinit { try? FileManager.default.removeItem(atPath: path.string) }

  /// Makes a file with these contents, and gives its path.
  @discardableResult
  public func file(_ name: String, _ contents: some Sequence<UInt8>, mode: CInterop.Mode = 0o644) throws -> FilePath {
    let file = path.appending(name)
    try Data(contents).write(to: URL(filePath: file.string))
    guard chmod(file.string, mode) == 0 else { throw Errno(rawValue: errno) }
    return file
  }

  /// Makes a shell script, and gives its path.
  public func script(_ name: String, _ commands: String) throws -> FilePath {
    try file(name, Array("#!/bin/sh\n\(commands)\n".utf8), mode: 0o755)
  }
}

extension FilePath {
  /// Whether there is anything of that name.
  public static func exists(_ path: FilePath) -> Bool { access(path.string, F_OK) == 0 }
}
