import CSystemd
import Glibc

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

  private static func notify(_ state: String) { sd_notify(0, state) }
}
