import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport

/// A block device that is a file.
struct LoopDevice {
  let path: FilePath

  /// Makes a file of that size, and runs `body` with the device that it is.
  @EventLoopActor
  static func with<Result>(_ file: FilePath, size: Int, _ body: (LoopDevice) async throws -> Result) async throws -> Result {
    guard FileManager.default.createFile(atPath: file.string, contents: nil), truncate(file.string, size) == 0 else {
      throw Errno(rawValue: errno)
    }
    let made = try await command("losetup", ["--find", "--show", file.string])
    guard made.status == 0 else { throw RunningDaemon.Failure("losetup: \(made.error)") }
    let device = made.output.trimmingCharacters(in: .whitespacesAndNewlines)
    func detach() async throws { _ = try await command("losetup", ["--detach", device]) }
    do {
      let result = try await body(LoopDevice(path: FilePath(device)))
      try await detach()
      return result
    } catch {
      try? await detach()
      throw error
    }
  }
}
