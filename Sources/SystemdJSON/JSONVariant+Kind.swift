import CSystemd
import SystemdEvent

extension JSONVariant {
  /// What a value is.
  public enum Kind: Sendable {
    case null, boolean
    /// A number that is written without fraction and exponent, of either sign.
    case integer
    /// Any other number.
    case real
    case string, array, object
  }

  /// What this value is, as it was written: a real number that happens to be whole is still a real one.
  public var kind: Kind {
    switch sd_json_variant_type(pointer) {
    case SD_JSON_VARIANT_STRING: .string
    case SD_JSON_VARIANT_INTEGER, SD_JSON_VARIANT_UNSIGNED: .integer
    case SD_JSON_VARIANT_REAL: .real
    case SD_JSON_VARIANT_BOOLEAN: .boolean
    case SD_JSON_VARIANT_ARRAY: .array
    case SD_JSON_VARIANT_OBJECT: .object
    default: .null
    }
  }
}
