import Glibc
public import SystemPackage
public import SystemdEvent

/// A UNIX socket for this user alone, which goes with this object, in a folder of its own if nobody says where.
@EventLoopActor
public final class PrivateSocket {
  public let path: FilePath
  private let listening: ListeningSocket
  /// The folder that was made for it.
  private let folder: FilePath?

  /// - Parameter path: where to make it; nil for a new folder, in `$XDG_RUNTIME_DIR` or `$TMPDIR` if they are set, else in /tmp.
  public init(at path: FilePath? = nil) throws(SystemdError) {
    let folder = path == nil ? try Self.makeFolder() : nil
    self.folder = folder
    let path = path ?? folder?.appending("qmp") ?? "qmp"
    self.path = path
    do throws(SystemdError) {
      listening = try ListeningSocket(at: path)
    } catch {
      if let folder { rmdir(folder.string) }
      throw SystemdError("cannot make \(path)", error.errno)
    }
  }

  isolated deinit { close() }

  /// The next connection; nil once this is closed. One caller at a time.
  public func accept() async -> OwnedDescriptor? { await listening.accept() }

  /// Ends it, and removes what it made.
  public func close() {
    listening.close()
    if let folder { rmdir(folder.string) }
  }

  private static func makeFolder() throws(SystemdError) -> FilePath {
    let base = ["XDG_RUNTIME_DIR", "TMPDIR"].lazy.compactMap { ProcessEnvironment.value(of: $0) }.first { !$0.isEmpty } ?? "/tmp"
    // mkdtemp(3) makes it with mode 0700.
    var template = Array(FilePath(base).appending("qmpctl-" + String(repeating: "X", count: 6)).string.utf8CString)
    guard mkdtemp(&template) != nil else { throw .last("cannot make a folder in \(base)") }
    return FilePath(String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
  }
}
