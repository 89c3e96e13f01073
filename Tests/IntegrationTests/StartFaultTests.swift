import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// What a daemon needs of the system for its start, and does not get.
@Suite("a start without what it takes", .onEventLoop, .serialized) struct StartFaultTests {
  private static let program = productsDirectory.appending("qmp-varlinkd")

  /// Runs a daemon until it ends by itself, where `prepare`, words for a shell, was executed first. Looks that no QEMU is left.
  @EventLoopActor
  private static func start(
    in runtime: FilePath, prepare: String = "true", wrapper: [String] = [], program: FilePath = program, options: [String] = [],
    qemu: [String] = [], function: String = #function
  ) async throws -> CommandResult {
    let name = "start-\(getpid())"
    let daemon =
      [program.string, "run", "--machine", name, "--accel", "tcg", "--memory", "64M", "--register=no"]
      + ["--runtime-directory", runtime.string] + options + ["--", "-machine", "none"] + qemu
    let shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\(prepare) && exec \"$@\"", "sh"]
    let result = try await known(function: function) { try await command("timeout", ["60"] + shell + wrapper + daemon) }
    let left = try await command("pgrep", ["--full", "--list-full", "guest=\(name)"])
    #expect(left.output == "")
    return result
  }

  @Test(
    "no space in the runtime directory, or one that cannot be written: the daemon says so, and leaves no QEMU",
    arguments: [
      ("-o nr_inodes=1", "control", "No space left on device"), ("-o ro", "control", "Read-only file system"),
      ("-o nr_inodes=1", "sub/control", "No space left on device"), ("-o ro", "sub/control", "Read-only file system"),
    ])
  @EventLoopActor
  func runtimeDirectory(mount: String, socket: String, words: String) async throws {
    try await withTemporaryDirectory { folder in
      let path = folder.appending(socket)
      let result = try await Self.start(in: path.removingLastComponent(), prepare: "mount -t tmpfs \(mount) none \(folder)")
      #expect(result.status == 70, "\(result.error)")
      let what = socket.contains("/") ? "cannot make \(folder)/sub" : "cannot listen at \(path)"
      #expect(result.error.contains("error: \(what): \(words)"), "\(result.error)")
    }
  }

  @Test("a QEMU that cannot be executed: the daemon says why", arguments: ["missing", "plain", "folder", "text"]) @EventLoopActor
  func program(kind: String) async throws {
    try await withTemporaryDirectory { folder in
      let program = folder.appending(kind)
      let words: String
      switch kind {
      case "plain":
        try FileDescriptor.open(program, .writeOnly, options: .create, permissions: .ownerRead).close()
        words = "Permission denied"
      case "folder":
        try #require(mkdir(program.string, 0o755) == 0)
        words = "Permission denied"
      case "text":
        let file = try FileDescriptor.open(program, .writeOnly, options: .create, permissions: .ownerReadWriteExecute)
        try file.writeAll("\u{7F}ELF".utf8)
        try file.close()
        words = "Exec format error"
      default: words = "No such file or directory"
      }
      let result = try await Self.start(in: folder.appending("runtime"), options: ["--qemu", program.string])
      #expect(result.status == 70)
      #expect(result.error.contains("error: cannot start \(program): \(words)"), "\(result.error)")
    }
  }

  @Test("no further process for the daemon's user: the daemon says so") @EventLoopActor
  func noProcess() async throws {
    try await withTemporaryDirectory { folder in
      let runtime = folder.appending("runtime")
      let user = 61011
      try #require(mkdir(runtime.string, 0o755) == 0 && chown(runtime.string, UInt32(user), UInt32(user)) == 0)
      let wrapper = ["setpriv", "--reuid=\(user)", "--regid=\(user)", "--clear-groups", "prlimit", "--nproc=1"]
      // The checkout may be where another user cannot look.
      let program = folder.appending("qmp-varlinkd")
      try #require(await command("cp", [Self.program.string, program.string]).status == 0)
      let result = try await Self.start(in: runtime, wrapper: wrapper, program: program)
      #expect(result.status == 70, "\(result.error)")
      #expect(result.error.contains("cannot start qemu-system-x86_64: Resource temporarily unavailable"), "\(result.error)")
    }
  }

  @Test("a QEMU that ends instead of starting: its own words and status") @EventLoopActor
  func qemuEnds() async throws {
    try await withTemporaryDirectory { folder in
      let result = try await Self.start(in: folder.appending("runtime"), qemu: ["-device", "nonsense"])
      #expect(result.status == 1)
      #expect(result.error.contains("'nonsense' is not a valid device model name"), "\(result.error)")
    }
  }

  @Test(
    "memory for 20 to 500 MiB of addresses: the daemon ends, and leaves no QEMU", arguments: Array(stride(from: 20, through: 500, by: 20)))
  @EventLoopActor
  func memory(limit: Int) async throws {
    try await withTemporaryDirectory { folder in
      let result = try await Self.start(
        in: folder.appending("runtime"), wrapper: ["prlimit", "--as=\(limit << 20)"], qemu: ["-version"])
      // 124 would be this test's own limit.
      #expect(result.status != 0 && result.status != 124, "\(limit): \(result.status) \(result.error)")
      print("\(limit) MiB: \(result.status) \(result.error.split(separator: "\n").last ?? "")")
    }
  }
}
