public import SystemdEvent
public import SystemdJSON

/// An error reply: a qualified name and parameters.
public struct VarlinkError: Error, Sendable {
  public let name: String
  public let parameters: JSONVariant?

  public init(_ name: String, _ parameters: JSONVariant? = nil) {
    self.name = name
    self.parameters = parameters
  }

  // MARK: the standard's own errors

  /// The method streams its replies, and the caller did not ask for more than one.
  public static let expectedMore = VarlinkError("org.varlink.service.ExpectedMore")
  /// The method turns the connection over to another protocol, and the caller did not ask for that.
  public static let expectedUpgrade = VarlinkError("org.varlink.service.ExpectedUpgrade")
}

@EventLoopActor
extension VarlinkError {
  /// The value of a parameter is not acceptable.
  public static func invalidParameter(_ name: String) -> VarlinkError {
    VarlinkError("org.varlink.service.InvalidParameter", .object(["parameter": .string(name)]))
  }
}
