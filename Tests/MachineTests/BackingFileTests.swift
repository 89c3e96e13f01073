import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@testable import Machine

@Suite(.onEventLoop) struct BackingFileTests {
  private static let pathOnly: CInt = 0o10_000_000

  @EventLoopActor
  private func refusal(_ descriptor: CInt) -> Errno? {
    do throws(StorageError) {
      _ = try BackingFile(OwnedDescriptor(owning: descriptor))
      return nil
    } catch {
      if case .unsuitable(let errno, _) = error { return errno }
      return .ioError
    }
  }

  @Test("what a drive cannot be made of is told apart, its kind before its mode") @EventLoopActor
  func unsuitable() throws {
    let folder = try TemporaryFolder()
    let file = try folder.file("file", []).string
    let pipe = try pipePair()
    let sockets = try socketPair()
    #expect(refusal(open(folder.path.string, O_RDONLY)) == .isDirectory)
    #expect(refusal(open(folder.path.string, Self.pathOnly)) == .isDirectory)
    for descriptor in [pipe.reading, pipe.writing, sockets.ours, sockets.theirs, open("/dev/null", O_RDWR)] {
      #expect(refusal(descriptor) == Errno(rawValue: EBADFD))
    }
    #expect(refusal(open(file, Self.pathOnly)) == .badFileDescriptor)
    #expect(refusal(open(file, O_WRONLY)) == .badFileDescriptor)
    #expect(refusal(open(file, O_RDONLY)) == nil)
    #expect(refusal(open(file, O_RDWR | O_APPEND)) == nil)
  }

  @Test("mode and size, and the descriptor closed with its owner") @EventLoopActor
  func properties() throws {
    let folder = try TemporaryFolder()
    let path = try folder.file("file", [UInt8](repeating: 1, count: 1000)).string
    let reading = try BackingFile(OwnedDescriptor(owning: open(path, O_RDONLY)))
    #expect(reading.isReadOnly && !reading.isBlockDevice && reading.size == 1000)
    let raw: CInt
    do {
      let both = try BackingFile(OwnedDescriptor(owning: dup2(reading.raw, 700)))
      raw = both.raw
      #expect(isOpen(raw))
    }
    #expect(!isOpen(raw))
    #expect(try !BackingFile(OwnedDescriptor(owning: open(path, O_RDWR))).isReadOnly)
  }
}
