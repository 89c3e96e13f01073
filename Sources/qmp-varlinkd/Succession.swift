import CSystemd
import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON

/// How this process hands its work to the next run of the program: the descriptors, and a file in memory that tells of them.
///
/// A service manager that keeps descriptors for its services (`FileDescriptorStoreMax=`) gets them, and gives them to the process that it
/// starts next. Otherwise this process becomes that run by execve(2), with the program that is at its path by then.
@EventLoopActor
enum Succession {
  /// Tells the next run its descriptors: whether its sockets were passed to this one, the number of the file's, then the others in their
  /// order.
  private nonisolated static let variable = "QMP_VARLINK_HANDOVER"
  /// What the service manager knows the descriptors by; behind the second there is a number.
  private nonisolated static let stateName = "qmp-varlink-state"
  private nonisolated static let descriptorName = "qmp-varlink-"

  /// What the run before has left, as it came: its file, and its descriptors by their numbers, -1 for those that are missing.
  struct Inheritance: Sendable {
    fileprivate let state: CInt
    fileprivate let descriptors: [CInt]
    /// How many the service manager keeps still.
    fileprivate let stored: Int
    /// Whether the sockets that the run before listened on were passed to it.
    let arePassed: Bool
  }

  // MARK: what the run before has left

  /// Takes what the run before has left in this process, close-on-exec from now on, and removes it from the environment, for it is not meant
  /// for QEMU.
  ///
  /// - Parameter passed: the descriptors of the service manager, by their names. Those that are not of a handover stay the caller's.
  nonisolated static func take(_ passed: [(descriptor: CInt, name: String)]) -> Inheritance? {
    if let value = getenv(variable).map({ String(cString: $0) }) {
      unsetenv(variable)
      let numbers = value.split(separator: " ").compactMap { CInt($0) }
      for number in numbers { _ = fcntl(number, F_SETFD, FD_CLOEXEC) }
      let arePassed = value.hasPrefix(passedMark)
      if let state = numbers.first {
        return Inheritance(state: state, descriptors: Array(numbers.dropFirst()), stored: 0, arePassed: arePassed)
      }
    }
    guard passed.contains(where: { isOfHandover($0.name) }) else { return nil }
    let state = passed.first { $0.name == stateName }?.descriptor ?? -1
    var descriptors: [CInt] = []
    for (descriptor, name) in passed where isOfHandover(name) && name != stateName {
      guard let number = Int(name.dropFirst(descriptorName.count)), (0..<mostDescriptors).contains(number) else { continue }
      while descriptors.count <= number { descriptors.append(-1) }
      descriptors[number] = descriptor
    }
    return Inheritance(state: state, descriptors: descriptors, stored: descriptors.count, arePassed: false)
  }

  private nonisolated static let passedMark = "passed"
  /// More than a process can have.
  private nonisolated static let mostDescriptors = 1 << 20

  /// Whether that is the name of one of a handover's descriptors.
  nonisolated static func isOfHandover(_ name: String) -> Bool { name.hasPrefix(descriptorName) }

  /// What the run before has left, read. The service manager keeps none of it any more then.
  static func handover(_ inheritance: Inheritance) throws -> Handover {
    // Its descriptors are closed whatever follows.
    let handover = Handover(.null, descriptors: inheritance.descriptors)
    if inheritance.stored > 0 { ServiceManager.forget([stateName] + (0..<inheritance.stored).map { descriptorName + "\($0)" }) }
    guard inheritance.state >= 0 else { throw Handover.Failure("the daemon before was ended while it handed over") }
    let file = OwnedDescriptor(owning: inheritance.state)
    var status = stat()
    guard fstat(file.raw, &status) == 0 else { throw SystemdError.last("fstat") }
    var text = [UInt8](repeating: 0, count: Int(status.st_size) + 1)
    var count = 0
    while count < text.count - 1 {
      let part = text.withUnsafeMutableBytes { pread(file.raw, $0.baseAddress?.advanced(by: count), $0.count - 1 - count, off_t(count)) }
      guard part > 0 else { throw SystemdError.last("cannot read what the daemon before has left") }
      count += part
    }
    handover.value = try text.withUnsafeBufferPointer { try JSONVariant(parsingTerminated: $0) }
    return handover
  }

  // MARK: what this run leaves

  /// Whether the service manager keeps the descriptors, and this process ends.
  ///
  /// - Parameter outlives: whether QEMU goes on without this process; only then it may end.
  static func isByManager(outlives: Bool) -> Bool { outlives && ServiceManager.keepsDescriptors }

  /// Hands over to the next run, and does not return: this process ends, or becomes that run.
  ///
  /// - Parameter arePassed: whether the sockets that it listens on were passed to it.
  /// - Throws: why it cannot be. Everything is as it was then.
  static func begin(_ handover: Handover, byManager: Bool, arePassed: Bool) throws -> Never {
    let file = try OwnedDescriptor.inMemory("qmp-varlink")
    try handover.value.withText { text in
      var rest = text
      while !rest.isEmpty {
        let count = write(file.raw, rest.baseAddress, rest.count)
        guard count > 0 else { throw SystemdError.last("cannot write what the next run needs") }
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      }
    }
    if byManager {
      // The file last: without it the rest is of a process that was ended before it was done.
      let named = handover.descriptors.enumerated().map { (descriptorName + "\($0.offset)", $0.element) } + [(stateName, file.raw)]
      do {
        try ServiceManager.store(named)
      } catch {
        ServiceManager.forget(named.map(\.0))
        throw error
      }
      exit(status)
    }
    try become(file.raw, handover.descriptors, arePassed: arePassed)
  }

  /// Says to a service manager that the service is to be started again, should it not have asked for this itself: EX_TEMPFAIL.
  private static let status: CInt = 75

  private static func become(_ file: CInt, _ descriptors: [CInt], arePassed: Bool) throws -> Never {
    let program = try path()
    let inherited = [file] + descriptors
    for descriptor in inherited { _ = fcntl(descriptor, F_SETFD, 0) }
    setenv(variable, ((arePassed ? [passedMark] : []) + inherited.map { "\($0)" }).joined(separator: " "), 1)
    let words = CommandLine.arguments.map { strdup($0) } + [nil]
    ServiceManager.reloading()
    execv(program, words)
    let failure = SystemdError.last("cannot start \(program)")
    for word in words { free(word) }
    unsetenv(variable)
    for descriptor in inherited { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
    throw failure
  }

  /// Where this program is, or what has taken its place since.
  private static func path() throws(SystemdError) -> String {
    var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = buffer.withUnsafeMutableBytes { buffer in
      buffer.withMemoryRebound(to: CChar.self) { text in text.baseAddress.map { readlink("/proc/self/exe", $0, text.count) } ?? 0 }
    }
    guard count > 0 else { throw .last("/proc/self/exe") }
    let path = String(decoding: buffer[..<count], as: UTF8.self)
    // So the kernel tells of a file that was replaced.
    let mark = " (deleted)"
    return path.hasSuffix(mark) ? String(path.dropLast(mark.count)) : path
  }
}
