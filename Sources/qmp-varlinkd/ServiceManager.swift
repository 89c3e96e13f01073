import CSystemd
import Glibc
import SystemPackage
import SystemdEvent

/// The service manager that started this process, if one did (sd_notify).
enum ServiceManager {
  /// Whether this process is what the manager runs as a service, and not a descendant of that.
  static var runsThisProcess: Bool { getenv("SYSTEMD_EXEC_PID").flatMap { Int32(String(cString: $0)) } == getpid() }

  /// The service is up. Under systemd-vmspawn's name for it, callers learn the process that the machine lives and dies with.
  static func ready(_ status: String, leader: Int32?) {
    notify("READY=1\nSTATUS=\(status)" + (leader.map { "\nX_VMSPAWN_LEADER_PID=\($0)" } ?? ""))
  }
  /// What the service is at.
  static func status(_ status: String) { notify("STATUS=\(status)") }
  /// The service is on its way down.
  static func stopping(_ status: String) { notify("STOPPING=1\nSTATUS=\(status)") }

  /// The descriptors that the manager started this process with (sd_listen_fds(3)), close-on-exec from now on. They are given once, and
  /// no longer told of in the environment.
  static func takeDescriptors() throws(SystemdError) -> Range<CInt> {
    let count = sd_listen_fds(1)
    guard count >= 0 else { throw SystemdError("sd_listen_fds", Errno(rawValue: -count)) }
    return SD_LISTEN_FDS_START..<SD_LISTEN_FDS_START + count
  }

  /// Whether a descriptor is a UNIX stream socket that listens, or that does not.
  static func isStreamSocket(_ descriptor: CInt, listening: Bool) -> Bool {
    sd_is_socket_unix(descriptor, CInt(SOCK_STREAM.rawValue), listening ? 1 : 0, nil, 0) > 0
  }

  private static func notify(_ state: String) { sd_notify(0, state) }
}
