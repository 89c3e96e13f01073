import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@testable import Machine

@Suite("what is found out about the host and its files") struct HostTests {
  @Test(
    "an image's format is in its first bytes",
    arguments: [
      ([0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 3], ImageFormat.qcow2), ([0x51, 0x46, 0x49, 0xFB], .qcow2), ([0x51, 0x46, 0x49], .raw),
      ([0x51, 0x46, 0x49, 0xFA, 0], .raw), ([], .raw), ([0x4B, 0x44, 0x4D, 0x56], .raw), ([0, 0x51, 0x46, 0x49, 0xFB], .raw),
    ] as [([UInt8], ImageFormat)])
  @EventLoopActor
  func imageFormat(bytes: [UInt8], format: ImageFormat) throws {
    let folder = try TemporaryFolder()
    let file = OpenFile(try OpenFile.open(folder.file("image", bytes), O_RDONLY))
    #expect(withExtendedLifetime(file) { ImageFormat(of: file.descriptor.raw) } == format)
  }

  @Test("a file that cannot be read is an error that names it")
  func noFile() throws {
    let folder = try TemporaryFolder()
    let missing = folder.path.appending("missing")
    #expect(throws: SystemdError("cannot open \(missing)", .noSuchFileOrDirectory)) { try OpenFile.contents(of: missing, atMost: 1) }
    #expect(throws: SystemdError("cannot read \(folder.path)", .isDirectory)) { try OpenFile.contents(of: folder.path, atMost: 1) }
    let file = try folder.file("file", [1, 2, 3])
    #expect(try OpenFile.contents(of: file, atMost: 3) == [1, 2, 3])
    #expect(throws: SystemdError("cannot read \(file)", .fileTooLarge)) { try OpenFile.contents(of: file, atMost: 2) }
  }

  @Test("a pipe, a socket or a device is not read from: nobody waits for what comes there")
  func notRegular() throws {
    let folder = try TemporaryFolder()
    let pipe = folder.path.appending("pipe")
    try #require(mkfifo(pipe.string, 0o600) == 0)
    for path in [pipe, "/dev/zero"] {
      #expect(throws: SystemdError("cannot read \(path), which is no regular file", .invalidArgument)) {
        try OpenFile.contents(of: path, atMost: 1)
      }
    }
  }

  @Test("what may be secret is in memory, and nowhere else")
  func secretFile() throws {
    let file = try UnnamedFile.make([1, 2, 3])
    var target = [CChar](repeating: 0, count: 256)
    let length = readlink("/proc/self/fd/\(file.raw)", &target, target.count)
    let name = String(decoding: target.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    #expect(name.hasPrefix("/memfd:"), "\(name)")
    // As QEMU opens what it inherits.
    let again = try OpenFile.open(FilePath("/dev/fd/\(file.raw)"), O_RDWR)
    var bytes = [UInt8](repeating: 0, count: 4)
    #expect(read(again.raw, &bytes, bytes.count) == 3 && bytes == [1, 2, 3, 0])
  }

  @Test(
    "large temporary files are where TMPDIR says, if that says a place",
    arguments: [("/t", "/t"), (nil, "/var/tmp"), ("", "/var/tmp"), ("t", "/var/tmp")] as [(String?, FilePath)])
  func temporaryFolder(variable: String?, folder: FilePath) { #expect(UnnamedFile.folder { _ in variable } == folder) }

  @Test(
    "KVM needs a processor that says so",
    arguments: [
      ("vendor_id\t: x\nflags\t\t: fpu vmx sse\n", true), ("flags\t\t: fpu svm\n", true),
      ("flags\t\t: fpu vmx\nflags\t\t: fpu\n", true),
      ("flags\t\t: fpu sse\n", false), ("flags\t\t: fpu\nflags\t\t: vmx\n", false), ("flags\t\t: xvmx vmxx\n", false),
      ("model name: vmx\n", false),
      ("vmx flags\t: vnmi\nflags\t: fpu\n", false), ("", false),
    ])
  func kvm(processors: String, works: Bool) throws {
    let folder = try TemporaryFolder()
    let obstacle = KVM.obstacle(
      device: try folder.file("kvm", []), processors: try folder.file("cpuinfo", Array(processors.utf8)))
    #if arch(x86_64)
      #expect(obstacle == (works ? nil : "the processor shows neither vmx nor svm"))
    #else
      #expect(obstacle == nil)
    #endif
  }

  @Test("KVM needs its device, and says what is wrong with it")
  func kvmDevice() throws {
    let folder = try TemporaryFolder()
    let device = folder.path.appending("kvm")
    let obstacle = try #require(KVM.obstacle(device: device, processors: try folder.file("cpuinfo", Array("flags : vmx\n".utf8))))
    #expect(obstacle == "\(SystemdError(device.string, .noSuchFileOrDirectory))")
  }
}
