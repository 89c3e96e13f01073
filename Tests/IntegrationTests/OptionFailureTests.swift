import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("options that cannot be had", .onEventLoop, .serialized)
struct OptionFailureTests {
  /// One way to fail.
  struct Failure: Sendable, CustomTestStringConvertible {
    /// `%` is the folder.
    let options: [String]
    let message: String
    let status: Int32
    /// Covered by an empty folder, for this daemon.
    var hidden: [String] = []
    /// Behind `--`.
    var qemu: [String] = []
    var testDescription: String { options.joined(separator: " ") }
  }

  static let failures = [
    Failure(options: ["--image=%/missing"], message: "--image=%/missing: cannot open it: No such file or directory", status: 70),
    Failure(options: ["--image=%"], message: "--image=%: cannot open it: Is a directory", status: 70),
    Failure(options: ["--image=%/disk", "--image-format=qcow2"], message: "--image=%/disk: it is no qcow2 image", status: 70),
    Failure(options: ["--image=/dev/zero"], message: "--image=/dev/zero: it is neither a regular file nor a block device", status: 70),
    Failure(options: ["--extra-drive=nvme:%/missing"], message: "--extra-drive=nvme:%/missing: cannot open it: No such file", status: 70),
    Failure(options: ["--image=%/disk", "--extra-drive=%/disk"], message: "--extra-drive=%/disk: Failed to get \"write\" lock", status: 1),
    Failure(options: ["--extra-drive=qcow2:%/broken"], message: "--extra-drive=qcow2:%/broken: ", status: 1),
    Failure(
      options: ["--image=%/disk"], message: "--image=%/disk: No 'PCI' bus found for device 'virtio-blk-pci'", status: 1,
      qemu: ["-machine", "none"]),
    Failure(options: ["--image=%/disk", "--ephemeral"], message: "--ephemeral: cannot make a temporary file in /nonexistent", status: 70),
    Failure(options: ["--firmware=%/missing"], message: "--firmware=%/missing: cannot open %/missing: No such file", status: 70),
    Failure(options: ["--firmware=%/disk"], message: "--firmware=%/disk: %/disk is no firmware descriptor: ", status: 70),
    Failure(
      options: ["--firmware=uefi"], message: "--firmware=uefi: no UEFI firmware is described in ", status: 70,
      hidden: ["/usr/share/qemu/firmware"]),
    Failure(
      options: ["--network=user", "--forward=%port:22"], message: "--forward=%port:22: Could not set up host forwarding rule", status: 1),
    Failure(options: ["--vsock=yes"], message: "--vsock=yes: cannot open /dev/vhost-vsock: ", status: 70),
    Failure(
      options: ["--tpm=yes"], message: "--tpm=yes: swtpm is not on PATH: install the package 'swtpm'", status: 70, hidden: ["/usr/bin"]),
    Failure(options: ["--tpm-state=%/missing"], message: "--tpm-state=%/missing: cannot use it: No such file or directory", status: 70),
    Failure(
      options: ["--tpm-state=%/tpm", "--bind=%/folder:/x", "--image=%/disk", "--extra-drive=%/disk"],
      message: "--extra-drive=%/disk: Failed to get \"write\" lock", status: 1),
    Failure(options: ["--bind=%/missing"], message: "--bind=%/missing: cannot open it: No such file", status: 70),
    Failure(options: ["--bind-ro=%/disk:/x"], message: "--bind-ro=%/disk:/x: it is no folder", status: 70),
    Failure(
      options: ["--bind=%/folder"], message: "--bind=%/folder: virtiofsd is not there: install the package 'virtiofsd'", status: 70,
      hidden: ["/usr/libexec", "/usr/lib/qemu"]),
    Failure(
      options: ["--load-credential=a:%/missing"], message: "--load-credential=a:%/missing: cannot open %/missing: No such", status: 70),
    Failure(
      options: ["--load-credential=a:%/pipe"], message: "cannot read %/pipe, which is no regular file: Invalid argument", status: 70),
    Failure(options: ["--memory=64M"], message: "QEMU exited with status 0 before it was ready", status: 1, qemu: ["-version"]),
    Failure(options: ["--ram=64"], message: "'64' is not between 1M and 1024T", status: 64),
    Failure(options: ["--extra-drive=vmdk:/x"], message: "'vmdk' is neither a format (raw, qcow2) nor a disk type", status: 64),
  ]

  @Test("each tells the option, and leaves no process and no file", arguments: failures) @EventLoopActor
  func failure(failure: Failure) async throws {
    try await withTemporaryDirectory { folder in
      withExtendedLifetime(try DiskImage(folder.appending("disk"), size: 1 << 20, contents: "no JSON")) {}
      // A header of an image of 1 MiB whose first table is where none can be.
      let header: [UInt8] =
        [0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 3] + [UInt8](repeating: 0, count: 12) + [0, 0, 0, 16, 0, 0, 0, 0, 0, 16, 0, 0]
        + [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1] + [UInt8](repeating: 0, count: 48) + [0, 0, 0, 4, 0, 0, 0, 104]
        + [UInt8](repeating: 0, count: 1 << 20)
      try Data(header).write(to: URL(filePath: folder.appending("broken").string))
      for name in ["tpm", "folder", "runtime"] {
        try FileManager.default.createDirectory(atPath: folder.appending(name).string, withIntermediateDirectories: false)
      }
      try #require(mkfifo(folder.appending("pipe").string, 0o600) == 0)
      let listening = socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      defer { close(listening) }
      let port = try DeviceOptionTests.bound(listening, port: 0)
      try #require(listen(listening, 1) == 0)
      let fill = { (text: String) in text.replacing("%port", with: "\(port)").replacing("%", with: folder.string) }
      let before = try Self.files(in: folder)

      let name = "failing-\(getpid())"
      // In a mount namespace of its own, where what is to be missing is hidden.
      let script = failure.hidden.map { "mount -t tmpfs none \($0) && " }.joined() + "exec \"$@\""
      let daemon = try await command(
        "unshare",
        ["--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh", productsDirectory.appending("qmp-varlinkd").string, "run"]
          + ["--machine", name, "--accel", "tcg", "--memory", "64M", "--runtime-directory", folder.appending("runtime").string]
          + failure.options.map(fill) + (failure.qemu.isEmpty ? [] : ["--"] + failure.qemu),
        environment: failure.message.contains("/nonexistent") ? ["TMPDIR": "/nonexistent"] : [:])
      #expect(daemon.status == failure.status, "\(daemon.error)")
      #expect(daemon.error.contains(fill(failure.message)), "\(daemon.error)")
      #expect(try Self.files(in: folder) == before)
      // QEMU has the name on its command line, the others the folder; so has nothing else but this process's own child.
      let left = try await command("pgrep", ["--full", "--list-full", "guest=\(name)|(swtpm|virtiofsd).*\(folder)"])
      #expect(left.output == "")
    }
  }

  /// All files in a folder. What swtpm keeps of a TPM is meant to stay.
  private static func files(in folder: FilePath) throws -> [String] {
    try FileManager.default.subpathsOfDirectory(atPath: folder.string).filter { !$0.hasPrefix("tpm/") }.sorted()
  }
}
