/// The members of a JSON object, in the order in which QEMU tells them: that of its hash table of 512 chains, the youngest member
/// of a chain first.
public struct QDict: Sendable, Equatable {
  /// A name, byte for byte: what Unicode takes for the same text is another name to QEMU.
  private struct Name: Sendable, Hashable {
    let text: String
    init(_ text: String) { self.text = text }
    static func == (left: Name, right: Name) -> Bool { left.text.utf8.elementsEqual(right.text.utf8) }
    func hash(into hasher: inout Hasher) {
      var text = text
      text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    }
  }
  private struct Member: Sendable, Equatable {
    var value: QObject
    /// How many members had been added before.
    let age: Int
  }
  private var table: [Name: Member] = [:]
  private var additions = 0

  public init() {}

  public init(_ members: [(String, QObject)]) {
    for (name, value) in members { self[name] = value }
  }

  public var isEmpty: Bool { table.isEmpty }

  /// The value of a member. One that is set again keeps its place.
  public subscript(name: String) -> QObject? {
    get { table[Name(name)]?.value }
    set {
      let name = Name(name)
      guard let newValue else {
        table[name] = nil
        return
      }
      table[name] = Member(value: newValue, age: table[name]?.age ?? additions)
      additions += 1
    }
  }

  /// The members as QEMU's iterators visit them.
  public var ordered: [(name: String, value: QObject)] {
    guard table.count > 1 else { return table.map { ($0.key.text, $0.value.value) } }
    let rows = table.map { (chain: Self.chain(of: $0.key.text), age: $0.value.age, name: $0.key.text, value: $0.value.value) }
    return rows.sorted { $0.chain != $1.chain ? $0.chain < $1.chain : $0.age > $1.age }.map { ($0.name, $0.value) }
  }

  public static func == (left: QDict, right: QDict) -> Bool {
    left.table.count == right.table.count && left.table.allSatisfy { right.table[$0.key]?.value == $0.value.value }
  }

  /// Which of the chains a name is in: a sum of its bytes, each shifted by its place, through one step of a linear congruence.
  private static func chain(of name: String) -> UInt32 {
    let bytes = modifiedUTF8(name)
    var sum = 0x238F_13AF &* UInt32(truncatingIfNeeded: bytes.count)
    for (index, byte) in bytes.enumerated() { sum &+= UInt32(byte) << UInt32(index * 5 % 24) }
    return (1_103_515_243 &* sum &+ 12345) % 512
  }
}
