import CSystemd

/// The service manager that started this process, if one did (sd_notify).
enum ServiceManager {
  /// The simulator can be connected to.
  static func ready() { _ = sd_notify(0, "READY=1") }
  /// It is on its way down.
  static func stopping() { _ = sd_notify(0, "STOPPING=1") }
}
