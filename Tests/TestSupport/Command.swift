import Glibc
public import Subprocess
public import SystemPackage

/// How a finished command went.
public struct CommandResult: Sendable {
  /// As a shell tells it: 128 and more for signals.
  public let status: Int32
  public let output: String
  public let error: String
}

extension TerminationStatus {
  /// As a shell tells it: 128 and more for signals.
  public var shellStatus: Int32 {
    switch self {
    case .exited(let status): status
    case .signaled(let signal): 128 + signal
    }
  }
}

/// Runs a program of PATH, or of a path, to its end. That the program is missing is an error: nothing is skipped.
public func command(_ program: String, _ arguments: [String], input: String = "", environment: [String: String] = [:]) async throws
  -> CommandResult
{
  let updates = Dictionary(uniqueKeysWithValues: environment.map { (Environment.Key(stringLiteral: $0), Optional($1)) })
  let result = try await run(
    program.contains("/") ? .path(FilePath(program)) : .name(program), arguments: Arguments(arguments),
    environment: .inherit.updating(updates), input: .string(input), output: .string(limit: 64 << 20), error: .string(limit: 64 << 20))
  return CommandResult(
    status: result.terminationStatus.shellStatus, output: result.standardOutput, error: result.standardError)
}

/// The folder that the built programs are in, which is the one that the tests are in.
public var productsDirectory: FilePath {
  var buffer = [CChar](repeating: 0, count: 4096)
  let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
  return FilePath(String(decoding: buffer[..<max(0, count)].map { UInt8(bitPattern: $0) }, as: UTF8.self)).removingLastComponent()
}

/// A folder that goes with the test.
public func withTemporaryDirectory<Result>(
  isolation: isolated (any Actor)? = #isolation, _ body: (FilePath) async throws -> Result
) async throws -> Result {
  var template = Array("/tmp/qmp-varlink-test-XXXXXX".utf8CString)
  guard mkdtemp(&template) != nil else { throw Errno(rawValue: errno) }
  let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  // A daemon that a test runs as another user has to reach what is in it.
  guard chmod(path, 0o755) == 0 else { throw Errno(rawValue: errno) }
  func remove() async throws { _ = try await command("rm", ["-rf", "--one-file-system", path]) }
  do {
    let result = try await body(FilePath(path))
    try await remove()
    return result
  } catch {
    try? await remove()
    throw error
  }
}

/// The contents of a file, as far as there are any.
public func contents(of path: FilePath) -> String {
  guard let descriptor = try? FileDescriptor.open(path, .readOnly) else { return "" }
  defer { try? descriptor.close() }
  var bytes: [UInt8] = []
  let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 8)
  defer { buffer.deallocate() }
  while let count = try? descriptor.read(into: buffer), count > 0 { bytes.append(contentsOf: buffer[..<count]) }
  return String(decoding: bytes, as: UTF8.self)
}
