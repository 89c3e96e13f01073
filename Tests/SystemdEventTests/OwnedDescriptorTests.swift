import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite struct OwnedDescriptorTests {
  /// A descriptor with a number that nothing else in this process gets while the test looks at it.
  private func high(_ raw: CInt, _ number: CInt) -> CInt {
    let copy = fcntl(raw, F_DUPFD_CLOEXEC, number)
    close(raw)
    return copy
  }

  @Test("it is closed with its owner, unless it was given away")
  func ownership() throws {
    let file = try pipePair()
    let (first, second) = (high(file.reading, 700), high(file.writing, 710))
    do {
      let owned = OwnedDescriptor(owning: first)
      let isOwned = owned.raw == first && isOpen(first)
      #expect(isOwned)
    }
    #expect(!isOpen(first))
    do {
      let owned = OwnedDescriptor(owning: second)
      let taken = owned.take()
      #expect(taken == second)
    }
    #expect(isOpen(second))
    close(second)
  }

  @Test("a duplicate is another number for the same file, close-on-exec")
  func duplicate() throws {
    let file = try pipePair()
    let owned = OwnedDescriptor(owning: file.writing)
    let copy = try owned.duplicate()
    let (number, original) = (copy.raw, owned.raw)
    #expect(number != original && number > 2)
    #expect(inode(number) == inode(original))
    #expect(fcntl(number, F_GETFD) == FD_CLOEXEC)
    withExtendedLifetime(copy) {}
    close(file.reading)
  }

  @Test("sockets are told from other files")
  func kinds() throws {
    let pair = try SocketPair()
    let (ours, theirs) = (pair.ours.isSocket, pair.theirs.isSocket)
    #expect(ours && theirs)
    let file = try pipePair()
    let isSocket = OwnedDescriptor(owning: file.reading).isSocket
    #expect(!isSocket)
    close(file.writing)
  }

  @Test("a pair is connected and close-on-exec, and half of it can be kept")
  func pair() throws {
    let pair = try SocketPair()
    let (near, far) = (pair.ours.raw, pair.theirs.raw)
    #expect(fcntl(near, F_GETFD) == FD_CLOEXEC && fcntl(far, F_GETFD) == FD_CLOEXEC)
    #expect(write(far, "x", 1) == 1)
    let ours = pair.takeOurs()
    var byte: UInt8 = 0
    #expect(read(near, &byte, 1) == 1 && byte == UInt8(ascii: "x"))
    // The other half is closed.
    #expect(read(near, &byte, 1) == 0)
    withExtendedLifetime(ours) {}
  }

  @Test("passed descriptors are closed, unless they are taken")
  func passed() throws {
    let files = try (0..<3).map { _ in try pipePair() }
    let numbers = files.enumerated().map { high($1.reading, CInt(720 + 10 * $0)) }
    defer { for file in files { close(file.writing) } }
    do {
      var passed = PassedDescriptors(owning: [numbers[0]])
      var held = passed.raw
      #expect(held == [numbers[0]])
      passed.close()
      held = passed.raw
      #expect(held == [] && !isOpen(numbers[0]))
      passed.append([numbers[1]])
      held = passed.raw
      #expect(held == [numbers[1]])
    }
    #expect(!isOpen(numbers[1]))
    do {
      var passed = PassedDescriptors(owning: [numbers[2]])
      let taken = passed.take()
      let isEmpty = passed.isEmpty
      #expect(taken == [numbers[2]] && isEmpty)
    }
    #expect(isOpen(numbers[2]))
    close(numbers[2])
  }

  @Test("a socket is connected to by its path, and the reason is told if not")
  func connecting() throws {
    let folder = try TemporaryFolder()
    #expect(throws: SystemdError("connect", .noSuchFileOrDirectory)) { _ = try OwnedDescriptor.connected(to: folder.path.appending("x")) }
    let long = folder.path.appending(String(repeating: "x", count: 108))
    #expect(throws: SystemdError("connect", .fileNameTooLong)) { _ = try OwnedDescriptor.connected(to: long) }
  }

  @Test("errors say what failed and why")
  func errors() {
    #expect("\(SystemdError("sd_event_new", .noMemory))" == "sd_event_new: Cannot allocate memory")
    #expect(throws: SystemdError("it", .noMemory)) { try check("it", -ENOMEM) }
    #expect((try? check("it", 5)) == 5)
  }
}
