import CSystemd
import Glibc
import SystemPackage
public import SystemdEvent

/// A message of D-Bus's: one that is written, or one that came and is read from front to back.
@EventLoopActor
public final class BusMessage {
  let pointer: OpaquePointer

  /// Takes over a reference.
  init(owning pointer: OpaquePointer) { self.pointer = pointer }

  /// Takes a reference of its own.
  convenience init(borrowing pointer: OpaquePointer) { self.init(owning: sd_bus_message_ref(pointer)) }

  isolated deinit { sd_bus_message_unref(pointer) }

  // MARK: writing

  func append(_ value: BusValue) throws(SystemdError) {
    switch value {
    // A string is handed over by the pointer to its letters.
    case .string(let text):
      try check("sd_bus_message_append_basic", text.withCString { sd_bus_message_append_basic(pointer, Self.letter("s"), $0) })
    case .int32(let number): try append("i", number)
    case .uint32(let number): try append("u", number)
    case .uint64(let number): try append("t", number)
    case .descriptor(let raw): try append("h", raw)
    case .structure(let members):
      try container("r", value.contents) { () throws(SystemdError) in
        for member in members { try append(member) }
      }
    case .strings(let entries): try append(entries, of: "ss") { text throws(SystemdError) in try append(.string(text)) }
    case .variants(let entries):
      try append(entries, of: "sv") { value throws(SystemdError) in
        try container("v", value.signature) { () throws(SystemdError) in try append(value) }
      }
    }
  }

  private func append<Value>(
    _ entries: [String: Value], of types: String, _ body: (Value) throws(SystemdError) -> Void
  ) throws(SystemdError) {
    try container("a", "{\(types)}") { () throws(SystemdError) in
      for (key, value) in entries.sorted(by: { $0.key < $1.key }) {
        try container("e", types) { () throws(SystemdError) in
          try append(.string(key))
          try body(value)
        }
      }
    }
  }

  private func container(_ type: Unicode.Scalar, _ contents: String, _ body: () throws(SystemdError) -> Void) throws(SystemdError) {
    try check("sd_bus_message_open_container", sd_bus_message_open_container(pointer, Self.letter(type), contents))
    try body()
    try check("sd_bus_message_close_container", sd_bus_message_close_container(pointer))
  }

  private func append<Value: BitwiseCopyable>(_ type: Unicode.Scalar, _ value: Value) throws(SystemdError) {
    let result = withUnsafePointer(to: value) { sd_bus_message_append_basic(pointer, Self.letter(type), $0) }
    try check("sd_bus_message_append_basic", result)
  }

  /// A type's letter, as C has letters.
  private static func letter(_ type: Unicode.Scalar) -> CChar { CChar(truncatingIfNeeded: type.value) }

  // MARK: reading

  /// The error that it is, if it is one: its name, and what it says in words.
  public var error: (name: String, message: String)? {
    guard let error = sd_bus_message_get_error(pointer), let name = error.pointee.name else { return nil }
    return (String(cString: name), error.pointee.message.map { String(cString: $0) } ?? "")
  }

  /// Steps into the structure that comes next, whose contents are to be of these types.
  ///
  /// - Throws: `ENXIO` when something else comes.
  public func enterStructure(_ contents: String) throws(SystemdError) {
    let entered = try check(
      "sd_bus_message_enter_container", sd_bus_message_enter_container(pointer, Self.letter("r"), contents))
    guard entered > 0 else { throw SystemdError("sd_bus_message_enter_container", .noSuchAddressOrDevice) }
  }

  /// The boolean that comes next.
  ///
  /// - Throws: `ENXIO` when something else comes.
  public func readBoolean() throws(SystemdError) -> Bool {
    var value: CInt = 0
    let read = try check("sd_bus_message_read_basic", sd_bus_message_read_basic(pointer, Self.letter("b"), &value))
    guard read > 0 else { throw SystemdError("sd_bus_message_read_basic", .noSuchAddressOrDevice) }
    return value != 0
  }
}
