import Glibc
public import SystemPackage

/// A credential for the guest's systemd (systemd.io, "System and Service Credentials").
public struct Credential: Sendable, Equatable {
  public let name: String
  /// Where its value comes from.
  public enum Source: Sendable, Equatable {
    case value([UInt8])
    case file(FilePath)
  }
  public let source: Source
  /// The option that it came with, as the user wrote it.
  public let option: String

  /// The largest that systemd takes, in bytes.
  static let largest = 1 << 20

  /// `NAME:VALUE`, where the value may have C's escapes. What is wrong with it is told without the value, which may be secret.
  public init(literal text: String, option: String) throws(OptionValueError) {
    guard text.contains(":") else { throw OptionValueError("it is not NAME:VALUE") }
    let (name, value) = try Self.split(text, "VALUE")
    self.name = name
    // A value may be secret: it is not repeated.
    self.option = "\(option)=\(name):…"
    source = .value(try CEscapes.decode(value))
    if case .value(let bytes) = source, bytes.count > Self.largest { throw OptionValueError("the credential is larger than 1 MiB") }
  }

  /// `NAME:PATH`. A path without any slash is looked for among the credentials of the daemon's own service.
  public init(
    file text: String, option: String, environment: (String) -> String?
  ) throws(OptionValueError) {
    let (name, path) = try Self.split(text, "PATH")
    guard !path.isEmpty else { throw OptionValueError("'\(text)' has no path") }
    self.name = name
    self.option = "\(option)=\(text)"
    if !path.contains("/"), let ownCredentials = environment("CREDENTIALS_DIRECTORY") {
      source = .file(FilePath(ownCredentials).appending(path))
    } else {
      source = .file(FilePath(path))
    }
  }

  /// A credential that is no user's.
  init(name: String, value: [UInt8], option: String) {
    self.name = name
    source = .value(value)
    self.option = option
  }

  private static func split(_ text: String, _ what: String) throws(OptionValueError) -> (name: String, rest: String) {
    guard let colon = text.firstIndex(of: ":") else { throw OptionValueError("'\(text)' is not NAME:\(what)") }
    let name = String(text[..<colon])
    // It becomes the name of a file, and stands before a '=' on the way.
    guard (1...255).contains(name.utf8.count), name != ".", name != "..",
      name.unicodeScalars.allSatisfy({ $0.isASCII && $0.value > 0x20 && $0.value < 0x7F && $0 != "/" && $0 != "=" })
    else { throw OptionValueError("'\(name)' is no name for a credential") }
    return (name, String(text[text.index(after: colon)...]))
  }

  /// The string of SMBIOS type 11 from which systemd takes it.
  static func smbiosString(_ name: String, _ value: [UInt8]) -> String { "io.systemd.credential.binary:\(name)=\(Base64.encode(value))" }
}

/// RFC 4648.
enum Base64 {
  private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  static func encode(_ bytes: [UInt8]) -> String {
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      let bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << (8 * UInt32(3 - group.count))
      for place in 0..<4 { text.append(place <= group.count ? alphabet[Int(bits >> (18 - 6 * UInt32(place)) & 63)] : UInt8(ascii: "=")) }
    }
    return String(decoding: text, as: UTF8.self)
  }
}

/// The backslash escapes of C string literals.
enum CEscapes {
  private static let single: [UInt8: UInt8] = [
    UInt8(ascii: "a"): 7, UInt8(ascii: "b"): 8, UInt8(ascii: "f"): 12, UInt8(ascii: "n"): 10, UInt8(ascii: "r"): 13,
    UInt8(ascii: "t"): 9, UInt8(ascii: "v"): 11, UInt8(ascii: "\\"): 92, UInt8(ascii: "\""): 34, UInt8(ascii: "'"): 39,
    UInt8(ascii: "s"): 32,
  ]

  static func decode(_ text: String) throws(OptionValueError) -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    /// Takes a number of exactly that many digits.
    func number(_ digits: Int, radix: Int) throws(OptionValueError) -> Int {
      // A sign is none of them, which Int takes too.
      guard rest.count >= digits, rest.prefix(digits).allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
        let value = Int(String(decoding: rest.prefix(digits), as: UTF8.self), radix: radix)
      else {
        throw OptionValueError("the escape at its end, or one in it, is none that C has")
      }
      rest = rest.dropFirst(digits)
      return value
    }
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "\\") else {
        bytes.append(byte)
        continue
      }
      guard let kind = rest.popFirst() else { throw OptionValueError("it ends in a lone backslash") }
      switch kind {
      case UInt8(ascii: "x"): bytes.append(UInt8(try number(2, radix: 16)))
      case UInt8(ascii: "u"), UInt8(ascii: "U"):
        let scalar = Unicode.Scalar(UInt32(try number(kind == UInt8(ascii: "u") ? 4 : 8, radix: 16)))
        guard let scalar else { throw OptionValueError("it has an escape for a character that there is not") }
        bytes += Array(String(Character(scalar)).utf8)
      case UInt8(ascii: "0")...UInt8(ascii: "7"):
        rest = [kind] + rest
        let value = try number(3, radix: 8)
        guard let single = UInt8(exactly: value) else { throw OptionValueError("it has an octal escape above 377") }
        bytes.append(single)
      default:
        guard let plain = single[kind] else {
          throw OptionValueError("it has a backslash before what is no escape of C; a backslash itself is \\\\")
        }
        bytes.append(plain)
      }
    }
    return bytes
  }
}
