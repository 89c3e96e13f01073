public import QMP
public import SystemdEvent

/// How an operation on a machine can fail.
public enum MachineError: Error, CustomStringConvertible {
  /// QEMU ended before it was ready; with what it printed last.
  case startFailed(ExitStatus, lastWords: [String])
  /// What an option asks for cannot be had.
  case option(OptionFailure)
  /// A command of ours failed.
  case qmp(QMPError)
  /// A monitor cannot be added or removed.
  case monitor(MonitorError)
  /// This QEMU lacks what the operation needs.
  case notSupported(String)
  /// A system call failed.
  case system(SystemdError)

  public var description: String {
    switch self {
    case .startFailed(let status, let lastWords):
      lastWords.isEmpty ? "QEMU \(status) before it was ready" : "QEMU \(status) before it was ready: \(lastWords.joined(separator: "\n"))"
    case .option(let failure): "\(failure)"
    case .qmp(let error): "\(error)"
    case .monitor(let error): "\(error)"
    case .notSupported(let what): what
    case .system(let error): "\(error)"
    }
  }
}

/// Why what an option asks for cannot be had.
public struct OptionFailure: Error, CustomStringConvertible {
  /// As the user wrote it.
  public let option: String
  public let reason: String
  /// Whether it is QEMU that refused, and not this host before QEMU was asked.
  public let isRefusal: Bool

  init(_ option: String, _ reason: String, isRefusal: Bool = false) {
    self.option = option
    self.reason = reason
    self.isRefusal = isRefusal
  }

  public var description: String { "\(option): \(reason)" }
}
