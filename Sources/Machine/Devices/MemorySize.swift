/// The guest's memory as systemd-vmspawn's `--ram=BYTES[:MAXBYTES[:SLOTS]]` says it.
public struct MemorySize: Sendable, Equatable {
  /// In bytes.
  public let size: UInt64
  /// What it can grow to, in bytes, if memory can be added.
  public let maximum: UInt64?
  /// How often memory can be added.
  public let slots: Int?

  /// How often it can, unless that is said.
  private static let usualSlots = 16

  /// Each number may end in K, M, G or T, by 1024.
  public init(parsing text: String) throws(OptionValueError) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard (1...3).contains(parts.count) else { throw OptionValueError("'\(text)' is not BYTES[:MAXBYTES[:SLOTS]]") }
    size = try Self.bytes(parts[0])
    maximum = parts.count > 1 ? try Self.bytes(parts[1]) : nil
    if let maximum, maximum < size { throw OptionValueError("the maximum is less than the size") }
    if parts.count > 2 {
      guard let slots = Int(parts[2]), (1...256).contains(slots) else { throw OptionValueError("'\(parts[2])' is not 1 to 256 slots") }
      self.slots = slots
    } else {
      slots = maximum == nil ? nil : Self.usualSlots
    }
  }

  /// As QEMU's `-m` takes it.
  public var qemuValue: String {
    guard let maximum, let slots else { return "\(size)B" }
    return "size=\(size)B,maxmem=\(maximum)B,slots=\(slots)"
  }

  private static func bytes(_ text: Substring) throws(OptionValueError) -> UInt64 {
    let units: [Character: UInt64] = ["B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40]
    var digits = text
    var factor: UInt64 = 1
    if let last = digits.last, let unit = units[last] {
      factor = unit
      digits.removeLast()
    }
    guard digits.allSatisfy(\.isASCII), let number = UInt64(digits), number > 0 else {
      throw OptionValueError("'\(text)' is not a size such as 512M or 2G")
    }
    let (bytes, isTooMuch) = number.multipliedReportingOverflow(by: factor)
    guard !isTooMuch, bytes >= 1 << 20, bytes <= 1 << 50 else { throw OptionValueError("'\(text)' is not between 1M and 1024T") }
    return bytes
  }
}
