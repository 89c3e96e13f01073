import Glibc
import SystemdEvent

/// Runs `qmpctl` on another host.
@EventLoopActor
enum RemoteCommand {
  /// The most that is read of what it prints, in bytes.
  private static let longestOutput = 4 << 20
  /// What a shell ends with when there is no such program.
  private static let commandNotFound: CInt = 127

  /// How it went.
  struct Outcome: Sendable {
    let status: ExitStatus
    let output: [UInt8]
    let errors: String
  }

  /// Runs it with these arguments, and gives what it prints.
  ///
  /// - Throws: ``ControlError``; when it takes longer than `limit`, or prints too much, it is ended.
  static func output(of words: [String], on host: SSHHost, within limit: Duration) async throws(ControlError) -> String {
    let outcome = try await run(words, on: host, within: limit)
    // What it printed counts also when it could not do all that it was told.
    guard outcome.status == .exited(0) || !outcome.output.isEmpty else { throw .unreachable(host, outcome.status, outcome.errors) }
    return String(decoding: outcome.output, as: UTF8.self)
  }

  /// Runs it with these arguments.
  ///
  /// - Parameter longestOutput: the most that is read of what it prints, in bytes.
  /// - Throws: ``ControlError`` if it cannot be run; when it takes longer than `limit`, or prints too much, it is ended.
  static func run(
    _ words: [String], on host: SSHHost, longestOutput: Int = longestOutput, within limit: Duration
  ) async throws(ControlError) -> Outcome {
    let output: CollectedOutput
    let errors: CollectedOutput
    let program: ChildProgram
    do throws(SystemdError) {
      output = try CollectedOutput(limit: longestOutput)
      errors = try CollectedOutput(limit: SSHTunnel.longestComplaint)
      let nothing = open("/dev/null", O_RDONLY | O_CLOEXEC)
      guard nothing >= 0 else { throw .last("/dev/null") }
      let input = OwnedDescriptor(owning: nothing)
      program = try ChildProgram(
        SSHHost.program, host.arguments(for: words), standard: (input.raw, output.writingEnd, errors.writingEnd))
      output.closeWritingEnd()
      errors.closeWritingEnd()
    } catch {
      throw .cannotRun(error)
    }
    let end = ContinuousClock.now + limit
    guard let status = await program.ended.value(within: limit), await output.ended.value(within: end - .now) != nil else {
      program.signal(SIGTERM)
      throw ControlError(
        .unreachable, "\(host.name) did not answer within \(limit.inWords)", hint: "--timeout=SECONDS waits longer.")
    }
    _ = await errors.ended.value(within: end - .now)
    if status == .exited(commandNotFound) {
      throw ControlError(
        .unreachable, "\(host.name) has no qmpctl", hint: "Without it, name machines there by the path of their control socket.")
    }
    guard !output.isCut else { throw ControlError(.unreachable, "\(host.name) answers more than can be true") }
    return Outcome(status: status, output: output.bytes, errors: errors.text)
  }
}

extension SSHHost {
  /// What `qmpctl` does there with these arguments: for what takes files of that host, or descriptors, which do not travel.
  ///
  /// - Parameters:
  ///   - longestOutput: the most that it may print, in bytes.
  ///   - limit: how long it may take.
  /// - Returns: what it printed.
  /// - Throws: ``ControlError``, in the words of the other side.
  @EventLoopActor
  public func run(_ words: [String], longestOutput: Int = 4 << 20, within limit: Duration) async throws(ControlError) -> [UInt8] {
    var words = words
    words.insert(Self.timeout(within: limit), at: words.firstIndex(of: "--") ?? words.endIndex)
    let outcome = try await RemoteCommand.run(words, on: self, longestOutput: longestOutput, within: limit)
    if outcome.status == .exited(0) { return outcome.output }
    let lines = outcome.errors.split(whereSeparator: \.isNewline).map { $0.hasPrefix("qmpctl: ") ? String($0.dropFirst(8)) : String($0) }
    let isRefusal = outcome.status == .exited(ControlError.Kind.failed.rawValue)
    throw ControlError(
      isRefusal ? .failed : .unreachable, "\(name): \(lines.first ?? "\(SSHHost.program) \(outcome.status)")",
      hint: lines.count > 1 ? lines[1] : nil)
  }
}
