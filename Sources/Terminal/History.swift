/// The lines that were entered before, oldest first.
public struct History: Sendable {
  /// How many are kept; the oldest go first.
  public static let most = 1000

  public private(set) var lines: [String]

  public init(_ lines: [String] = []) { self.lines = lines.suffix(Self.most) }

  /// Adds a line, unless it is the last one again.
  ///
  /// - Returns: whether it was added.
  @discardableResult
  public mutating func add(_ line: String) -> Bool {
    guard line != lines.last else { return false }
    if lines.count == Self.most { lines.removeFirst() }
    lines.append(line)
    return true
  }
}
