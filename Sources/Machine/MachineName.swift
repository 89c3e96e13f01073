/// A machine's name: what a host could be called, since folders, units and machinectl take it as it is.
public struct MachineName: Sendable, Hashable, CustomStringConvertible {
  public let description: String

  /// - Returns: nil unless `name` is 1 to 64 letters, digits, dashes and dots, and begins with a letter or digit.
  public init?(_ name: String) {
    let isPlain = { (character: Character) in character.isASCII && (character.isLetter || character.isNumber) }
    guard (1...64).contains(name.utf8.count), let first = name.first, isPlain(first), !name.contains(".."),
      name.allSatisfy({ isPlain($0) || $0 == "-" || $0 == "." })
    else { return nil }
    description = name
  }
}
