import Glibc
import SystemPackage
import SystemdEvent
import Varlink

/// A connection to a socket of another host, which `ssh` carries until this object goes.
@EventLoopActor
final class SSHTunnel {
  private let host: SSHHost
  private let program: ChildProgram
  private let errors: CollectedOutput
  private var connection: OwnedDescriptor?
  /// How many bytes of what `ssh` complains of are kept.
  static let longestComplaint = 4096
  /// How long `ssh` may take to end when its connection has.
  private static let farewell = Duration.seconds(2)

  init(to socket: FilePath, on host: SSHHost) throws(ControlError) {
    self.host = host
    do throws(SystemdError) {
      let pair = try SocketPair()
      let errors = try CollectedOutput(limit: Self.longestComplaint)
      self.errors = errors
      let standard = (pair.theirs.raw, pair.theirs.raw, errors.writingEnd)
      program = try ChildProgram(SSHHost.program, ["-W", socket.string, host.name], standard: standard)
      errors.closeWritingEnd()
      connection = pair.takeOurs()
    } catch {
      throw .cannotRun(error)
    }
  }

  isolated deinit { program.signal(SIGTERM) }

  /// The connection; once.
  func takeConnection() -> OwnedDescriptor {
    guard let connection = connection.take() else { preconditionFailure("the connection is taken once") }
    return connection
  }

  /// What became of a call, if that is because of the way to the host.
  func failure(_ error: VarlinkClientError) async -> ControlError? {
    guard case .disconnected = error, let status = await program.ended.value(within: Self.farewell), status != .exited(0) else {
      return nil
    }
    _ = await errors.ended.value(within: Self.farewell)
    return .unreachable(host, status, errors.text)
  }
}

extension ControlError {
  static func cannotRun(_ error: SystemdError) -> ControlError {
    ControlError(.unreachable, "\(error)", hint: "It takes an SSH client to reach other hosts; $SYSTEMD_SSH names the program.")
  }

  /// What `ssh` ended with.
  static func unreachable(_ host: SSHHost, _ status: ExitStatus, _ complaint: String) -> ControlError {
    let lines = complaint.split(whereSeparator: \.isNewline)
    return ControlError(.unreachable, "\(host.name): \(lines.last.map(String.init) ?? "\(SSHHost.program) \(status)")")
  }
}
