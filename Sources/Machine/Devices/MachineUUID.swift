/// The machine's UUID, which the guest's firmware tells it.
public struct MachineUUID: Sendable, Equatable, CustomStringConvertible {
  /// With dashes, in lower case.
  public let description: String

  /// With dashes or without, as systemd takes it.
  public init(parsing text: String) throws(OptionValueError) {
    let hex = text.filter { $0 != "-" }
    let groups = text.split(separator: "-", omittingEmptySubsequences: false).map(\.count)
    guard groups == [32] || groups == [8, 4, 4, 4, 12], hex.allSatisfy({ $0.isASCII && $0.isHexDigit }) else {
      throw OptionValueError("'\(text)' is not a UUID")
    }
    guard hex.contains(where: { $0 != "0" }) else { throw OptionValueError("a UUID of zeroes alone stands for none") }
    var rest = hex.lowercased()[...]
    description = [8, 4, 4, 4, 12].map { length in
      defer { rest = rest.dropFirst(length) }
      return String(rest.prefix(length))
    }.joined(separator: "-")
  }
}
