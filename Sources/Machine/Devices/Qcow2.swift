import Glibc
import SystemPackage
import SystemdEvent

/// As much of the qcow2 format (docs/interop/qcow2.txt of QEMU) as it takes to look at an image and to make an empty one.
enum Qcow2 {
  static let magic: [UInt8] = [UInt8(ascii: "Q"), UInt8(ascii: "F"), UInt8(ascii: "I"), 0xFB]

  /// What an image's header says.
  struct Header: Equatable {
    /// What a guest sees, in bytes.
    let size: Int
    /// Whether there are more files that belong to it, by names that are relative to its own.
    let refersToOtherFiles: Bool

    /// - Returns: nil for what is no header.
    init?(_ bytes: [UInt8]) {
      guard bytes.count >= 104, Array(bytes[..<4]) == Qcow2.magic else { return nil }
      func number(at offset: Int, _ length: Int) -> UInt64 { bytes[offset..<(offset + length)].reduce(0) { $0 << 8 | UInt64($1) } }
      guard let size = Int(exactly: number(at: 24, 8)) else { return nil }
      self.size = size
      let isVersion3 = number(at: 4, 4) >= 3
      let hasDataFile = isVersion3 && number(at: 72, 8) & 4 != 0
      refersToOtherFiles = number(at: 8, 8) != 0 || hasDataFile
    }
  }

  private static let clusterBits = 16
  private static let cluster = 1 << clusterBits
  /// What an entry of the first table reaches: a second table of 8-byte entries, one a cluster.
  private static let reach = cluster / 8 * cluster
  /// How many clusters a block of 16-bit counts has counts for.
  private static let counted = cluster / 2
  /// QEMU opens none with a larger first table.
  private static let largestTable = 32 << 20

  /// The largest image that ``empty(size:)`` makes, in bytes.
  static let largest = largestTable / 8 * reach

  /// An image of `size` bytes that has nothing in it: the beginning of the file, and the file's length.
  ///
  /// Its clusters are, in this order: the header, a table of reference counts' blocks, one such block, the first table. Nothing names
  /// a file below it: whoever opens it says what is there.
  static func empty(size: Int) -> (beginning: [UInt8], length: Int) {
    let entries = max(1, (size + reach - 1) / reach)
    let tableClusters = (entries * 8 + cluster - 1) / cluster
    let clusters = 3 + tableClusters
    precondition(size >= 0 && size <= largest && clusters <= counted)
    var bytes = [UInt8](repeating: 0, count: 3 * cluster)
    func put(_ value: Int, _ length: Int, at offset: Int) {
      for place in 0..<length { bytes[offset + place] = UInt8(truncatingIfNeeded: value >> (8 * (length - 1 - place))) }
    }
    bytes.replaceSubrange(0..<4, with: magic)
    put(3, 4, at: 4)
    put(clusterBits, 4, at: 20)
    put(size, 8, at: 24)
    put(entries, 4, at: 36)
    put(3 * cluster, 8, at: 40)
    put(cluster, 8, at: 48)
    put(1, 4, at: 56)
    // Reference counts of 1 << 4 bits, and the header's own length.
    put(4, 4, at: 96)
    put(104, 4, at: 100)
    put(2 * cluster, 8, at: cluster)
    for number in 0..<clusters { put(1, 2, at: 2 * cluster + 2 * number) }
    return (bytes, clusters * cluster)
  }

  /// The header of an open file.
  static func header(of file: CInt) -> Header? {
    var bytes = [UInt8](repeating: 0, count: 104)
    guard pread(file, &bytes, bytes.count, 0) == bytes.count else { return nil }
    return Header(bytes)
  }

  /// Makes an empty image of `size` bytes in a file without a name.
  static func makeEmpty(size: Int, in folder: FilePath) throws(SystemdError) -> OwnedDescriptor {
    let file = try UnnamedFile.make(in: folder)
    let (beginning, length) = empty(size: size)
    try UnnamedFile.write(beginning, to: file, at: 0)
    guard ftruncate(file.raw, length) == 0 else { throw .last("ftruncate") }
    return file
  }
}
