import CSystemd

/// The service manager that started this process, if one did (sd_notify).
enum ServiceManager {
  /// The service is up.
  static func ready(_ status: String) { notify("READY=1\nSTATUS=\(status)") }
  /// What the service is at.
  static func status(_ status: String) { notify("STATUS=\(status)") }
  /// The service is on its way down.
  static func stopping(_ status: String) { notify("STOPPING=1\nSTATUS=\(status)") }

  private static func notify(_ state: String) { sd_notify(0, state) }
}
