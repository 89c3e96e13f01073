/// A value of D-Bus's type system, as far as calls here have any.
public enum BusValue: Sendable, Equatable {
  case string(String)
  case int32(Int32)
  case uint32(UInt32)
  case uint64(UInt64)
  /// Goes along as a duplicate; the descriptor stays the caller's.
  case descriptor(CInt)
  /// `(...)`
  case structure([BusValue])
  /// `a{ss}`
  case strings([String: String])
  /// `a{sv}`
  case variants([String: BusValue])

  /// Its type, as D-Bus spells it.
  var signature: String {
    switch self {
    case .string: "s"
    case .int32: "i"
    case .uint32: "u"
    case .uint64: "t"
    case .descriptor: "h"
    case .structure: "(\(contents))"
    case .strings: "a{ss}"
    case .variants: "a{sv}"
    }
  }

  /// The same without what encloses it.
  var contents: String {
    guard case .structure(let members) = self else { return signature }
    return members.map(\.signature).joined()
  }
}
