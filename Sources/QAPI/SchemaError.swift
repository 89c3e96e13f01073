/// Why a schema cannot be served.
public struct SchemaError: Error, CustomStringConvertible, Equatable {
  public let description: String
  init(_ description: String) { self.description = description }
}
