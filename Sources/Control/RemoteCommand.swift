import Glibc
import SystemdEvent

/// Runs `qmpctl` on another host.
@EventLoopActor
enum RemoteCommand {
  /// The most that is read of what it prints, in bytes.
  private static let longestOutput = 4 << 20
  /// What a shell ends with when there is no such program.
  private static let commandNotFound: CInt = 127

  /// Runs it with these arguments, and gives what it prints.
  ///
  /// - Throws: ``ControlError``; when it takes longer than `limit`, or prints too much, it is ended.
  static func output(of words: [String], on host: SSHHost, within limit: Duration) async throws(ControlError) -> String {
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
    if status == .exited(commandNotFound) {
      throw ControlError(
        .unreachable, "\(host.name) has no qmpctl", hint: "Without it, name machines there by the path of their control socket.")
    }
    // What it printed counts also when it could not do all that it was told.
    guard status == .exited(0) || !output.bytes.isEmpty else {
      _ = await errors.ended.value(within: end - .now)
      throw .unreachable(host, status, errors.text)
    }
    guard !output.isCut else { throw ControlError(.unreachable, "\(host.name) answers more than can be true") }
    return output.text
  }
}
