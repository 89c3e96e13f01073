import Glibc
import SystemPackage
import SystemdEvent
import TestSupport

/// A small Linux guest, and its serial console with a shell.
@EventLoopActor
struct Guest {
  let console: Peer
  private static var lastCommand = 0

  /// Makes kernel and RAM disk in a folder.
  static func make(in folder: FilePath) async throws {
    let made = try await command(try repositoryRoot().appending("examples/guest/make-guest").string, [folder.string])
    guard made.status == 0 else { throw RunningDaemon.Failure(made.error) }
  }

  /// The daemon's arguments for a guest that ``make(in:)`` made, with its console on a socket there.
  ///
  /// - Parameters:
  ///   - extra: QEMU's.
  ///   - options: the daemon's.
  nonisolated static func arguments(in folder: FilePath, _ extra: [String] = [], options: [String] = []) -> [String] {
    // Unless the options say it.
    let memory = options.contains("--memory") ? [] : ["--memory", "256M"]
    return ["run", "--machine", "guest"] + options + memory + [
      "--kernel", folder.appending("vmlinuz").string, "--initrd", folder.appending("initrd").string,
      // The kernel checks its timer in the first moments, and panics on a machine that is busy with other things.
      "--append", "console=ttyS0 quiet no_timer_check", "--stop-timeout", "0", "--", "-serial", "chardev:serial",
      "-chardev",
      "socket,id=serial,path=\(folder.appending("console")),server=on,wait=off",
    ] + extra
  }

  /// Connects to the console, and waits until the guest is up.
  static func boot(in folder: FilePath) async throws -> Guest {
    let guest = Guest(console: try Peer(.connected(to: folder.appending("console"))))
    let up = guest.console
    // Without KVM, on a busy machine, this takes its time.
    for _ in 0..<4 where !up.text.contains("guest: up") { try? await up.wait(for: "guest: up") }
    try await up.wait(for: "guest: up")
    return guest
  }

  /// Has the guest's shell run a command, and gives what that printed.
  func run(_ command: String) async throws -> String {
    Self.lastCommand += 1
    // What the terminal echoes is not what is waited for.
    let (begin, end) = ("begin-\(Self.lastCommand)-", "end-\(Self.lastCommand)-")
    try await console.write("echo begin-''\(Self.lastCommand)-; \(command); echo end-''\(Self.lastCommand)-\n")
    try await console.wait(for: end)
    // Without the terminal's carriage returns.
    let text = String(decoding: console.received.filter { $0 != UInt8(ascii: "\r") }, as: UTF8.self)
    guard let from = text.firstRange(of: begin + "\n"), let to = text.firstRange(of: end) else { throw RunningDaemon.Failure(text) }
    return String(text[from.upperBound..<to.lowerBound])
  }

  /// The checkout that these tests were built from.
  nonisolated static func repositoryRoot(_ file: StaticString = #filePath) throws -> FilePath {
    FilePath("\(file)").removingLastComponent().removingLastComponent().removingLastComponent()
  }
}

/// A file to make a drive of.
struct DiskImage: ~Copyable {
  let descriptor: OwnedDescriptor

  /// Opens a block device.
  init(device: FilePath) throws {
    let raw = open(device.string, O_RDWR | O_CLOEXEC)
    guard raw >= 0 else { throw SystemdError.last("open") }
    descriptor = OwnedDescriptor(owning: raw)
  }

  /// Makes a file of that size that begins with `contents`, and opens it.
  @EventLoopActor
  init(_ path: FilePath, size: Int, contents: String = "", flags: CInt = O_RDWR) throws {
    let file = open(path.string, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw SystemdError.last("open") }
    let made = OwnedDescriptor(owning: file)
    guard ftruncate(file, size) == 0, pwrite(file, contents, contents.utf8.count, 0) == contents.utf8.count else {
      throw SystemdError.last("write")
    }
    descriptor = flags == O_RDWR ? made : OwnedDescriptor(owning: open(path.string, flags | O_CLOEXEC))
  }
}

extension RunningDaemon {
  /// Adds a drive, and gives the reply.
  func addStorage(_ name: String, _ config: String, _ image: borrowing DiskImage) async throws -> String {
    try await connect().call(
      "io.systemd.MachineInstance.AddStorage", #"{"fileDescriptorIndex":0,"name":"\#(name)","config":"\#(config)"}"#,
      descriptors: [image.descriptor.raw])
  }

  func replaceStorage(_ name: String, _ image: borrowing DiskImage) async throws -> String {
    try await connect().call(
      "io.systemd.MachineInstance.ReplaceStorage", #"{"fileDescriptorIndex":0,"name":"\#(name)"}"#, descriptors: [image.descriptor.raw])
  }

  func removeStorage(_ name: String) async throws -> String {
    try await call("io.systemd.MachineInstance.RemoveStorage", #"{"name":"\#(name)"}"#)
  }
}
