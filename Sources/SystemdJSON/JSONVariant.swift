import CSystemd
import Glibc
public import SystemdEvent

/// A JSON value: one reference to libsystemd's `sd_json_variant`.
///
/// Values are immutable and shared, never copied: a reply of QEMU goes to a Varlink caller as the object that the parser
/// made. Their reference counts are not atomic, so they live on the event loop's thread only.
@EventLoopActor
public final class JSONVariant {
  /// The C object; nil is libsystemd's way to say null. Owned by this object.
  public nonisolated(unsafe) let pointer: OpaquePointer?
  // Unsafe only in name: constant, and what it points to is used through this class's isolated members alone.

  /// Takes over one reference.
  public init(owning pointer: OpaquePointer?) { self.pointer = pointer }

  /// Adds a reference of its own to a value that belongs to somebody else.
  public init(borrowing pointer: OpaquePointer?) { self.pointer = sd_json_variant_ref(pointer) }

  isolated deinit { sd_json_variant_unref(pointer) }

  /// Parses one JSON text.
  ///
  /// - Throws: ``JSONError`` with the place of the first fault. Text after the value is a fault, and so is a NUL.
  public convenience init(parsing text: String) throws(JSONError) {
    guard !text.utf8.contains(0) else { throw JSONError("NUL in JSON text") }
    var pointer: OpaquePointer?
    var line: UInt32 = 0
    var column: UInt32 = 0
    let result = sd_json_parse(text, sd_json_parse_flags_t(rawValue: 0), &pointer, &line, &column)
    guard result >= 0 else { throw JSONError("invalid JSON at line \(line), column \(column)") }
    self.init(owning: pointer)
  }

  /// Parses the JSON text in `bytes`, which must end with a NUL that is not part of it.
  ///
  /// - Throws: ``JSONError``.
  public convenience init(parsingTerminated bytes: UnsafeBufferPointer<UInt8>) throws(JSONError) {
    guard let base = bytes.baseAddress, let end = bytes.firstIndex(of: 0), end == bytes.count - 1 else {
      throw JSONError("NUL in JSON text")
    }
    var pointer: OpaquePointer?
    var line: UInt32 = 0
    var column: UInt32 = 0
    let result = base.withMemoryRebound(to: CChar.self, capacity: bytes.count) { text in
      sd_json_parse(text, sd_json_parse_flags_t(rawValue: 0), &pointer, &line, &column)
    }
    guard result >= 0 else { throw JSONError("invalid JSON at line \(line), column \(column)") }
    self.init(owning: pointer)
  }

  /// Calls `body` with the value as JSON text in its shortest form: no spaces, no line end.
  public func withText<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    // libsystemd takes no null pointer for a null here.
    guard let pointer else { return try "null".withCString { try body(UnsafeRawBufferPointer(start: $0, count: 4)) } }
    var text: UnsafeMutablePointer<CChar>?
    let length = sd_json_variant_format(pointer, sd_json_format_flags_t(rawValue: 0), &text)
    guard length >= 0, let text else { preconditionFailure("sd_json_variant_format: errno \(-length)") }
    defer { free(text) }
    return try body(UnsafeRawBufferPointer(start: text, count: Int(length)))
  }

  /// The value as JSON text in its shortest form.
  public var text: String { withText { String(decoding: $0, as: UTF8.self) } }

  // MARK: taking apart

  public var isNull: Bool { pointer == nil || sd_json_variant_is_null(pointer) != 0 }
  public var isObject: Bool { sd_json_variant_is_object(pointer) != 0 }
  public var isArray: Bool { sd_json_variant_is_array(pointer) != 0 }

  /// The string, if it is one.
  public var string: String? {
    guard sd_json_variant_is_string(pointer) != 0, let string = sd_json_variant_string(pointer) else { return nil }
    return String(cString: string)
  }

  /// The number, if it is a whole one that fits.
  public var integer: Int64? {
    sd_json_variant_is_integer(pointer) != 0 ? sd_json_variant_integer(pointer) : nil
  }

  /// The truth value, if it is one.
  public var boolean: Bool? {
    sd_json_variant_is_boolean(pointer) != 0 ? sd_json_variant_boolean(pointer) != 0 : nil
  }

  /// The elements, if it is an array.
  public var elements: [JSONVariant]? {
    guard isArray else { return nil }
    return (0..<sd_json_variant_elements(pointer)).map { JSONVariant(borrowing: sd_json_variant_by_index(pointer, $0)) }
  }

  /// The member of that name, if it is an object that has one; a member that is null counts.
  public subscript(name: String) -> JSONVariant? {
    guard isObject, let member = sd_json_variant_by_key(pointer, name) else { return nil }
    return JSONVariant(borrowing: member)
  }

  /// The members in their order, if it is an object.
  public var members: [(name: String, value: JSONVariant)]? {
    guard isObject else { return nil }
    // libsystemd keeps names and values in one row.
    return stride(from: 0, to: sd_json_variant_elements(pointer), by: 2).map { index in
      let name = sd_json_variant_string(sd_json_variant_by_index(pointer, index))
      return (name.map { String(cString: $0) } ?? "", JSONVariant(borrowing: sd_json_variant_by_index(pointer, index + 1)))
    }
  }

  // MARK: putting together

  public static var null: JSONVariant { JSONVariant(owning: nil) }

  /// A string. What libsystemd does not take, NUL and the code points that Unicode calls noncharacters, becomes U+FFFD.
  public static func string(_ value: String) -> JSONVariant {
    if let string = verbatim(value) { return string }
    let replaced = value.unicodeScalars.map { $0.value == 0 || $0.properties.isNoncharacterCodePoint ? "\u{FFFD}" : $0 }
    guard let string = verbatim(String(String.UnicodeScalarView(replaced))) else { preconditionFailure("out of memory") }
    return string
  }

  /// - Returns: nil if libsystemd refuses the text.
  private static func verbatim(_ value: String) -> JSONVariant? {
    var value = value
    var pointer: OpaquePointer?
    let result = value.withUTF8 { bytes in
      guard let base = bytes.baseAddress else { return sd_json_variant_new_string(&pointer, "") }
      return base.withMemoryRebound(to: CChar.self, capacity: bytes.count) { sd_json_variant_new_stringn(&pointer, $0, bytes.count) }
    }
    return result < 0 ? nil : JSONVariant(owning: pointer)
  }

  public static func integer(_ value: some BinaryInteger) -> JSONVariant {
    make { pointer in
      if let value = Int64(exactly: value) { return sd_json_variant_new_integer(&pointer, value) }
      return sd_json_variant_new_unsigned(&pointer, UInt64(value))
    }
  }

  public static func boolean(_ value: Bool) -> JSONVariant {
    make { sd_json_variant_new_boolean(&$0, value ? 1 : 0) }
  }

  public static func array(_ elements: [JSONVariant]) -> JSONVariant {
    var pointers = elements.map(\.pointer)
    return withExtendedLifetime(elements) { make { sd_json_variant_new_array(&$0, &pointers, pointers.count) } }
  }

  /// An object with these members, in this order. Members that are nil are left out.
  public static func object(_ members: KeyValuePairs<String, JSONVariant?>) -> JSONVariant {
    object(members.compactMap { name, value in value.map { (name, $0) } })
  }

  /// An object with these members, in this order.
  public static func object(_ members: [(String, JSONVariant)]) -> JSONVariant {
    let row = members.flatMap { [JSONVariant.string($0.0), $0.1] }
    var pointers = row.map(\.pointer)
    return withExtendedLifetime(row) { make { sd_json_variant_new_object(&$0, &pointers, pointers.count) } }
  }

  /// Runs one of libsystemd's constructors that fail on lack of memory only.
  private static func make(_ construct: (inout OpaquePointer?) -> CInt) -> JSONVariant {
    var pointer: OpaquePointer?
    let result = construct(&pointer)
    precondition(result >= 0, "sd_json_variant_new: errno \(-result)")
    return JSONVariant(owning: pointer)
  }
}

extension JSONVariant: @EventLoopActor CustomStringConvertible {
  public var description: String { text }
}

extension JSONVariant: @EventLoopActor Equatable {
  public static func == (left: JSONVariant, right: JSONVariant) -> Bool {
    // There are two ways to say null.
    left.isNull ? right.isNull : sd_json_variant_equal(left.pointer, right.pointer) != 0
  }
}

/// A text that is not JSON.
public struct JSONError: Error, CustomStringConvertible, Equatable {
  public let description: String
  public init(_ description: String) { self.description = description }
}
