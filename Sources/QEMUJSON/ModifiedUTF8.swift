/// The code point that begins at `index`, in the encoding that QEMU uses: UTF-8 with NUL as C0 80, and without surrogates,
/// noncharacters and overlong forms.
///
/// - Returns: nil for what is none of these; `index` is behind what was looked at either way.
func nextCodePoint(_ bytes: some RandomAccessCollection<UInt8>, _ index: inout Int) -> Unicode.Scalar? {
  func at(_ index: Int) -> UInt8 { bytes[bytes.index(bytes.startIndex, offsetBy: index)] }
  let first = at(index)
  index += 1
  if first < 0x80 { return Unicode.Scalar(first) }
  guard first & 0x40 != 0, first < 0xFE else { return nil }
  let length = (~first).leadingZeroBitCount
  var value = UInt32(first) & (0x7F >> UInt32(length))
  for _ in 1..<length {
    guard index < bytes.count, at(index) & 0xC0 == 0x80 else { return nil }
    value = value << 6 | UInt32(at(index) & 0x3F)
    index += 1
  }
  let smallest: [UInt32] = [0, 0, 0x80, 0x800, 0x10000, 0x20_0000, 0x400_0000]
  guard value >= smallest[length] || (value == 0 && length == 2) else { return nil }
  return scalar(value)
}

/// A code point that QEMU accepts.
func scalar(_ value: UInt32) -> Unicode.Scalar? {
  guard !(0xFDD0...0xFDEF).contains(value), value & 0xFFFE != 0xFFFE else { return nil }
  return Unicode.Scalar(value)
}

/// The text that QEMU makes of any bytes: what is not valid becomes U+FFFD, and a NUL ends it, as C's strings end.
func printable(_ bytes: [UInt8]) -> String {
  var scalars = String.UnicodeScalarView()
  var index = 0
  while index < bytes.count, bytes[index] != 0 { scalars.append(nextCodePoint(bytes, &index) ?? "\u{FFFD}") }
  return String(scalars)
}

/// A text's bytes as QEMU stores them.
func modifiedUTF8(_ text: String) -> [UInt8] {
  let bytes = Array(text.utf8)
  return bytes.contains(0) ? bytes.flatMap { $0 == 0 ? [0xC0, 0x80] : [$0] } : bytes
}
