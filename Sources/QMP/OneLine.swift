/// What a monitor that is pretty wrote, as one that is not writes it.
func onOneLine(_ text: some Collection<UInt8>) -> [UInt8] {
  guard text.contains(UInt8(ascii: "\n")) else { return Array(text) }
  var result: [UInt8] = []
  var isIndentation = false
  for byte in text where byte != UInt8(ascii: "\r") {
    // A line break within a string is escaped.
    if byte == UInt8(ascii: "\n") {
      isIndentation = true
      if result.last == UInt8(ascii: ",") { result.append(UInt8(ascii: " ")) }
    } else if !isIndentation || byte != UInt8(ascii: " ") {
      isIndentation = false
      result.append(byte)
    }
  }
  return result
}
