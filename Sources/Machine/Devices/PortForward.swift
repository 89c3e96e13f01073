import Glibc

/// A port of the host that leads to one of the guest: `[tcp:|udp:][ADDRESS:]HOSTPORT:GUESTPORT`.
public struct PortForward: Sendable, Equatable {
  /// In QEMU's words.
  public let transport: String
  /// The address of the host to listen on.
  public let address: String
  public let hostPort: UInt16
  public let guestPort: UInt16
  /// What the user wrote.
  public let text: String

  /// Who says no address means this machine alone.
  public init(parsing text: String) throws(OptionValueError) {
    self.text = text
    var parts = text.split(separator: ":", omittingEmptySubsequences: false)
    transport = parts.first == "udp" ? "udp" : "tcp"
    if parts.first == "tcp" || parts.first == "udp" { parts.removeFirst() }
    guard parts.count == 2 || parts.count == 3 else {
      throw OptionValueError("'\(text)' is not [tcp:|udp:][ADDRESS:]HOSTPORT:GUESTPORT")
    }
    if parts.count == 3 {
      address = String(parts.removeFirst())
      var parsed = in_addr()
      guard inet_pton(AF_INET, address, &parsed) == 1 else { throw OptionValueError("'\(address)' is not an IPv4 address") }
    } else {
      address = "127.0.0.1"
    }
    hostPort = try Self.port(parts[0])
    guestPort = try Self.port(parts[1])
  }

  /// QEMU's spelling.
  var rule: String { "\(transport):\(address):\(hostPort)-:\(guestPort)" }

  private static func port(_ text: Substring) throws(OptionValueError) -> UInt16 {
    guard text.allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(text), port > 0 else {
      throw OptionValueError("'\(text)' is not a port (1 to 65535)")
    }
    return port
  }
}
