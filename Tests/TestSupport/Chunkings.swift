/// The ways to cut a stream that a decoder must not care about: whole, byte by byte, and in two at every place.
///
/// Long streams are cut into small odd pieces instead of bytes, and in two at a few places only.
public func chunkings(_ bytes: [UInt8]) -> [[ArraySlice<UInt8>]] {
  let isLong = bytes.count > 4096
  let pieces = stride(from: 0, to: bytes.count, by: isLong ? 997 : 1).map {
    bytes[$0..<min(bytes.count, $0 + (isLong ? 997 : 1))]
  }
  let halves = stride(from: 1, to: max(1, bytes.count), by: isLong ? bytes.count / 8 : 1).map { [bytes[..<$0], bytes[$0...]] }
  return [[bytes[...]], pieces] + halves
}
