import Glibc
import SystemPackage
import SystemdEvent

/// Polkit's agent for terminals, which asks for a password where no other agent does. It ends with this object.
@EventLoopActor
final class AuthenticationAgent {
  private let program: ChildProgram
  /// How long it may take to be there. Then it is tried without.
  private static let limit = Duration.seconds(10)

  private init(_ program: ChildProgram) { self.program = program }

  /// Starts it for this process, and waits until polkit knows it.
  ///
  /// - Returns: nil if there is no such program.
  static func start() async -> AuthenticationAgent? {
    guard let pipe = try? SocketPair() else { return nil }
    let theirs = pipe.theirs.raw
    // It closes its standard output when polkit knows it, or will not. What it asks goes to the terminal itself.
    guard
      let program = try? ChildProgram("pkttyagent", ["--notify-fd=1", "--fallback", "--process=\(getpid())"], standard: (nil, theirs, nil))
    else { return nil }
    let ours = pipe.takeOurs()
    let isThere = Promise<Void>()
    let source = try? EventSource.descriptor(ours.raw, []) { _ in isThere.fulfil() }
    program.ended.whenFulfilled { _ in isThere.fulfil() }
    _ = await isThere.value(within: limit)
    source?.cancel()
    return AuthenticationAgent(program)
  }

  func end() { program.signal(SIGTERM) }
}
