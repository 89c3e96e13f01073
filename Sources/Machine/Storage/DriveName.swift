/// A drive's name inside an id of QEMU's, where the next daemon finds it.
///
/// Ids have letters, digits, `-`, `.` and `_` only. All other bytes of a name, and `_`, become `_` and two hexadecimal digits.
enum DriveName {
  /// How long the result may be: QEMU reads every byte of a command at a cost.
  private static let longest = 160

  /// - Returns: nil for a name that is too long.
  static func encode(_ name: String) -> String? {
    var text = ""
    for byte in name.utf8 {
      let character = Character(Unicode.Scalar(byte))
      if isPlain(character) {
        text.append(character)
      } else {
        text += (byte < 16 ? "_0" : "_") + String(byte, radix: 16)
      }
    }
    return text.utf8.count <= longest ? text : nil
  }

  /// - Returns: nil for what ``encode(_:)`` makes of no name.
  static func decode(_ text: some StringProtocol) -> String? {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "_") {
        // A sign is no digit, which the number takes too.
        guard rest.count >= 2, rest.prefix(2).allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
          let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
        else { return nil }
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        guard isPlain(Character(Unicode.Scalar(byte))) else { return nil }
        bytes.append(byte)
      }
    }
    return bytes.isEmpty ? nil : String(validating: bytes, as: UTF8.self)
  }

  private static func isPlain(_ character: Character) -> Bool {
    character.isASCII && (character.isLetter || character.isNumber || character == "-" || character == ".")
  }
}
