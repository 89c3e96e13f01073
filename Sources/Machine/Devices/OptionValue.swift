/// Why the value of an option makes no sense, in words for the user.
public struct OptionValueError: Error, CustomStringConvertible, Equatable {
  public let description: String

  init(_ description: String) { self.description = description }
}

/// A choice that can be left to what the host has.
public enum Tristate: String, Sendable, CaseIterable {
  case yes
  case no
  /// As `yes` where the host has what it needs, else as `no`.
  case auto

  /// What systemd takes for a boolean, and `auto`.
  public init?(parsing text: String) {
    switch text.lowercased() {
    case "auto": self = .auto
    case "1", "yes", "y", "true", "t", "on": self = .yes
    case "0", "no", "n", "false", "f", "off": self = .no
    default: return nil
    }
  }
}
