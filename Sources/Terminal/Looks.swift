/// How a piece of text looks on a terminal (ECMA-48, SGR).
public enum Look: String, Sendable {
  case bold = "1"
  case faint = "90"
  case reverse = "7"
  case red = "31"
  case green = "32"
  case yellow = "33"
  case blue = "34"
  case magenta = "35"
  case cyan = "36"
}

/// Gives text its looks, or leaves it as it is where those are not wanted.
public struct Looks: Sendable {
  public let areOn: Bool

  public init(areOn: Bool) { self.areOn = areOn }

  /// - Parameter text: has no sequences of its own; what comes from elsewhere is escaped before.
  public func callAsFunction(_ text: String, _ look: Look) -> String {
    areOn && !text.isEmpty ? "\u{1B}[\(look.rawValue)m\(text)\u{1B}[0m" : text
  }
}
