import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// What QEMU has and may do: no descriptor, no system call and no user more than it needs.
@Suite("QEMU has what it was given", .onEventLoop, .serialized) struct HardeningTests {
  private static let bare = ["run", "--machine", "m", "--accel=tcg"]
  private static let none = ["--", "-machine", "none"]

  @Test("QEMU inherits its own descriptors, whatever the daemon was started with") @EventLoopActor
  func descriptors() async throws {
    let folder = try TemporaryFolder()
    let secret = try folder.file("secret", [])
    // Without close-on-exec, as a careless parent leaves them.
    let launcher = ["sh", "-c", "exec 5<\(secret) 6</etc 7<>\(secret) 9>&1; exec \"$0\" \"$@\""]
    _ = try await withDaemon(Self.bare + Self.none, launcher: launcher) { daemon in
      try await Self.checkDescriptors(daemon, secret: secret.string)
    }
  }

  @EventLoopActor
  private static func checkDescriptors(_ daemon: RunningDaemon, secret: String) async throws {
    let qemu = try daemon.qemu()
    #expect(targets(of: daemon.process).filter { $0.value == secret }.count == 2)
    let atRest = targets(of: qemu)
    #expect(atRest[0] == "/dev/null" && atRest[2]?.hasPrefix("pipe:") == true && atRest[3]?.hasPrefix("socket:") == true)
    // What it made for itself has no name; nothing else is there.
    let others = atRest.filter { $0.key > 3 }.values.filter { !$0.hasPrefix("anon_inode:") && !$0.hasPrefix("/memfd:") }
    #expect(others.filter { !$0.hasPrefix("pipe:") && $0 != "/dev/null" }.isEmpty, "\(atRest)")
    #expect(!atRest.values.contains(secret) && !atRest.values.contains("/etc"))
    let session = try await daemon.acquireQMP()
    try await session.wait(for: "QMP")
    // The session's, and that of the control monitor which is kept in reserve while there are sessions.
    #expect(sockets(targets(of: qemu)) == 3)
    session.close()
    while sockets(targets(of: qemu)) > 2 { _ = try await daemon.call("io.systemd.MachineInstance.Describe") }
  }

  @Test("QEMU has its seccomp filter, unless it is told otherwise") @EventLoopActor
  func sandbox() async throws {
    for (options, arguments, mode) in [
      ([], [], "2"), (["--sandbox=no"], [], "0"), ([], ["-sandbox", "off"], "0"), (["--sandbox=yes"], [], "2"),
    ] {
      _ = try await withDaemon(Self.bare + options + Self.none + arguments) { daemon in
        let status = Self.status(of: try daemon.qemu())
        #expect(status["Seccomp"] == mode, "\(options) \(arguments)")
      }
    }
  }

  @Test("a QEMU that cannot is started without; with --sandbox=yes it is not started") @EventLoopActor
  func noSandbox() async throws {
    let folder = try TemporaryFolder()
    let old = try folder.script(
      "qemu",
      """
      case "$*" in *-sandbox*) echo "qemu: -sandbox: seccomp is not compiled into this build" >&2; exit 1 ;; esac
      exec qemu-system-x86_64 "$@"
      """)
    let (log, _) = try await withDaemon(Self.bare + ["--qemu", old.string] + Self.none) { daemon async throws in
      #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
      return daemon.log
    }
    #expect(log.contains("this QEMU has no sandbox"))
    let daemon = productsDirectory.appending("qmp-varlinkd").string
    let refused = try await command(
      daemon, Self.bare + ["--register=no", "--runtime-directory", folder.path.string, "--sandbox=yes", "--qemu", old.string] + Self.none)
    #expect(refused.status == 1 && refused.error.contains("seccomp is not compiled"))
  }

  @Test("QEMU runs as another user, with root's disks and what it needs of firmware, and ends with the daemon") @EventLoopActor
  func otherUser() async throws {
    let folder = try TemporaryFolder()
    let image = try folder.file("image", [UInt8](repeating: 0, count: 1 << 20), mode: 0o600)
    let other = try folder.file("other", [UInt8](repeating: 0, count: 1 << 20), mode: 0o600)
    let options = ["--run-as=nobody", "--image", image.string, "--image-format=raw", "--firmware=uefi", "--smbios11=one"]
    let (qemu, status) = try await withDaemon(Self.bare + options) { daemon in try await Self.checkUser(daemon, other: other) }
    #expect(status == 128 + SIGKILL)
    while kill(qemu, 0) == 0, !Self.isZombie(qemu) { try await quiet() }
  }

  @EventLoopActor
  private static func checkUser(_ daemon: RunningDaemon, other: FilePath) async throws -> Int32 {
    let qemu = try daemon.qemu()
    let status = status(of: qemu)
    let nobody = try #require(getpwnam("nobody")).pointee
    #expect(status["Uid"] == Array(repeating: "\(nobody.pw_uid)", count: 4).joined(separator: "\t"))
    #expect(status["Gid"] == Array(repeating: "\(nobody.pw_gid)", count: 4).joined(separator: "\t"))
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] { #expect(status[set] == "0000000000000000", "\(set)") }
    #expect(status["Seccomp"] == "2" && status["NoNewPrivs"] == "1")
    let block = try await daemon.qmp(#"{"execute":"query-block"}"#)
    #expect(block.contains("\"inserted\""), "\(block)")
    // A disk of root's that comes later.
    let raw = open(other.string, O_RDWR | O_CLOEXEC)
    let late = OwnedDescriptor(owning: raw)
    let reply = try await daemon.connect().call(
      "io.systemd.MachineInstance.AddStorage", #"{"fileDescriptorIndex":0,"name":"late"}"#, descriptors: [late.raw])
    #expect(!reply.contains("error"), "\(reply)")
    withExtendedLifetime(late) {}
    daemon.signal(SIGKILL)
    return qemu
  }

  @Test("what is no user to run as is told", arguments: ["root", "0", "nobody-of-that-name"]) @EventLoopActor
  func noUser(name: String) async throws {
    let daemon = productsDirectory.appending("qmp-varlinkd").string
    let result = try await command(daemon, Self.bare + ["--run-as=\(name)"])
    #expect(result.status == 64 && result.error.contains("there is no user '\(name)' but root"), "\(result.error)")
  }

  // MARK: /proc

  /// What the descriptors of a process lead to.
  private static func targets(of process: Int32) -> [Int: String] {
    let folder = "/proc/\(process)/fd"
    let numbers = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    let pairs = numbers.compactMap { number -> (Int, String)? in
      guard let key = Int(number), let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\(number)") else {
        return nil
      }
      return (key, target)
    }
    return Dictionary(uniqueKeysWithValues: pairs)
  }

  private static func sockets(_ targets: [Int: String]) -> Int { targets.values.count { $0.hasPrefix("socket:") } }

  private static func status(of process: Int32) -> [String: String] {
    let lines = contents(of: FilePath("/proc/\(process)/status")).split(separator: "\n").map { $0.split(separator: ":", maxSplits: 1) }
    return Dictionary(lines.map { (String($0[0]), $0.count > 1 ? $0[1].trimmingCharacters(in: .whitespaces) : "") }) { first, _ in first }
  }

  private static func isZombie(_ process: Int32) -> Bool { status(of: process)["State"]?.hasPrefix("Z") == true }
}
