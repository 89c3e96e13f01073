/// A value that is not of its type.
public struct ValueError: Error, CustomStringConvertible, Equatable {
  /// Where it is, such as `options.data[2].addr`; empty for the value as a whole.
  public private(set) var path: String
  /// What is wrong with it.
  public let reason: String

  init(_ reason: String, at path: String = "") {
    self.reason = reason
    self.path = path
  }

  /// The same, seen from the object that has the value as its member `name`.
  func under(_ name: String) -> ValueError {
    var error = self
    error.path = path.isEmpty || path.hasPrefix("[") ? name + path : "\(name).\(path)"
    return error
  }

  /// The same, seen from the array that has the value as an element.
  func under(_ index: Int) -> ValueError { under("[\(index)]") }

  public var description: String { path.isEmpty ? reason : "\(path): \(reason)" }
}
