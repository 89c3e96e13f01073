import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@testable import Machine

@Suite(.onEventLoop) struct Qcow2Tests {
  @Test(
    "QEMU finds an empty image to be in order, and of the right size",
    arguments: [0, 512, 65536, 1 << 20, (512 << 20) - 512, 512 << 20, (512 << 20) + 512, 10 << 30, 5 << 40])
  @EventLoopActor
  func empty(size: Int) async throws {
    let folder = try TemporaryFolder()
    let (beginning, length) = Qcow2.empty(size: size)
    let path = try folder.file("image", beginning)
    try #require(truncate(path.string, length) == 0)
    let checked = try await command("qemu-img", ["check", "-f", "qcow2", path.string])
    #expect(checked.status == 0 && checked.output.contains("No errors were found"), "\(checked.output)\(checked.error)")
    let information = try await command("qemu-img", ["info", "-f", "qcow2", "--output=json", path.string])
    #expect(information.output.contains("\"virtual-size\": \(size),"), "\(information.output)")
    #expect(Qcow2.Header(beginning)?.size == size)
    #expect(Qcow2.Header(beginning)?.refersToOtherFiles == false)
  }

  @Test("headers of QEMU's own making are understood") @EventLoopActor
  func headers() async throws {
    let folder = try TemporaryFolder()
    func make(_ name: String, _ options: [String]) async throws -> Qcow2.Header? {
      let path = folder.path.appending(name)
      let made = try await command("qemu-img", ["create", "-q", "-f", "qcow2"] + options + [path.string, "3M"])
      try #require(made.status == 0, "\(made.error)")
      let file = OpenFile(try OpenFile.open(path, O_RDONLY))
      return withExtendedLifetime(file) { Qcow2.header(of: file.descriptor.raw) }
    }
    let plain = try await make("plain", [])
    #expect(plain?.size == 3 << 20 && plain?.refersToOtherFiles == false)
    let old = try await make("old", ["-o", "compat=0.10"])
    #expect(old?.size == 3 << 20 && old?.refersToOtherFiles == false)
    let backed = try await make("backed", ["-b", folder.path.appending("plain").string, "-F", "qcow2"])
    #expect(backed?.refersToOtherFiles == true)
    let data = try await make("data", ["-o", "data_file=\(folder.path.appending("raw"))"])
    #expect(data?.refersToOtherFiles == true)
  }

  @Test("what is no header is none")
  func noHeader() {
    #expect(Qcow2.Header([]) == nil)
    #expect(Qcow2.Header([UInt8](repeating: 0, count: 104)) == nil)
    #expect(Qcow2.Header(Qcow2.magic + [0, 0, 0, 3]) == nil)
    var huge = Qcow2.empty(size: 0).beginning
    huge.replaceSubrange(24..<32, with: [UInt8](repeating: 0xFF, count: 8))
    #expect(Qcow2.Header(huge) == nil)
  }
}
