import CSystemd
import Glibc
public import SystemdEvent

/// An interface definition, made from its IDL text. libsystemd checks calls and replies against it and hands it out on
/// introspection.
@EventLoopActor
public final class VarlinkInterface {
  private let parsed: Parsed
  var pointer: UnsafeMutablePointer<sd_varlink_interface> { parsed.pointer }
  public let name: String

  /// What the IDL's grammar cannot say of a method, and its printer writes as a comment.
  public enum MethodKind: Sendable {
    /// One call, one reply.
    case plain
    /// A stream of replies.
    case more
    /// Ends with the connection turned over to another protocol.
    case upgrade
  }

  /// A text that libsystemd's parser refuses.
  public struct ParseError: Error, CustomStringConvertible {
    public let description: String
  }

  /// Parsed IDL text on its way to the loop. Long texts take milliseconds, and can be parsed on any thread.
  public final class Parsed: @unchecked Sendable {
    // Unchecked because of the pointer, which is to memory that nothing else refers to, and does not change.
    fileprivate let pointer: UnsafeMutablePointer<sd_varlink_interface>

    /// Parses IDL text.
    public init(_ text: String) throws(ParseError) {
      var parsed: UnsafeMutablePointer<sd_varlink_interface>?
      var line: UInt32 = 0
      var column: UInt32 = 0
      let result = sd_varlink_idl_parse(text, &line, &column, &parsed)
      guard result >= 0, let parsed else { throw ParseError(description: "IDL, line \(line), column \(column): errno \(-result)") }
      pointer = parsed
    }

    deinit { sd_varlink_interface_free(pointer) }
  }

  /// Parses IDL text. `kinds` names the methods that are not plain.
  public convenience init(parsing text: String, kinds: [String: MethodKind] = [:]) throws(ParseError) {
    self.init(try Parsed(text), kinds: kinds)
  }

  /// Makes an interface of parsed text, which is for one interface only. `kinds` names the methods that are not plain.
  public init(_ parsed: Parsed, kinds: [String: MethodKind] = [:]) {
    self.parsed = parsed
    name = String(cString: parsed.pointer.pointee.name)
    for symbol in Self.symbols(of: parsed.pointer) where symbol.pointee.symbol_type == SD_VARLINK_METHOD {
      switch kinds[String(cString: symbol.pointee.name)] ?? .plain {
      case .plain: break
      // "Supports", although these methods require it: for those that require, libsystemd 262 leaves calls with another
      // flag unanswered for ever. The handlers require it themselves (``VarlinkServer``).
      case .more: symbol.pointee.symbol_flags = SD_VARLINK_SUPPORTS_MORE
      case .upgrade: symbol.pointee.symbol_flags = SD_VARLINK_SUPPORTS_UPGRADE
      }
    }
  }

  /// The names of its methods, unqualified.
  public var methods: [String] {
    Self.symbols(of: pointer).filter { $0.pointee.symbol_type == SD_VARLINK_METHOD }.map { String(cString: $0.pointee.name) }
  }

  /// The definition as text, as introspection shows it.
  public var text: String {
    var text: UnsafeMutablePointer<CChar>?
    mustSucceed("sd_varlink_idl_format", sd_varlink_idl_format(pointer, &text))
    guard let text else { return "" }
    defer { free(text) }
    return String(cString: text)
  }

  /// The row of pointers behind the struct, which C declares as a flexible array and Swift does not import. They are
  /// constant in the declaration only: a parsed interface was allocated by the parser, for its owner to use.
  private static func symbols(
    of interface: UnsafeMutablePointer<sd_varlink_interface>
  ) -> [UnsafeMutablePointer<sd_varlink_symbol>] {
    let row = UnsafeMutableRawPointer(interface).advanced(by: MemoryLayout<sd_varlink_interface>.size)
      .assumingMemoryBound(to: UnsafeMutablePointer<sd_varlink_symbol>?.self)
    return sequence(state: 0) { index in
      defer { index += 1 }
      return row[index]
    }.map { $0 }
  }
}
