import Glibc
public import Testing

/// Has writes to broken pipes fail instead of ending the process, as the daemon does.
public struct IgnoringBrokenPipes: TestTrait, SuiteTrait {
  public var isRecursive: Bool { true }

  public func prepare(for test: Test) async throws { signal(SIGPIPE, SIG_IGN) }
}

extension Trait where Self == IgnoringBrokenPipes {
  /// Writes to broken pipes fail.
  public static var ignoringBrokenPipes: IgnoringBrokenPipes { IgnoringBrokenPipes() }
}
