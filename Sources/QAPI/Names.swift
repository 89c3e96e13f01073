/// How QAPI's names are spelled in Varlink.
///
/// The rules make names that are easy to guess; what makes the way back exact is that names are looked up in tables that
/// were made with them, never computed. Of one scope, such as the members of a type, each name gets one of its own.
enum Names {
  /// For members, enum values and events: the parts between `-`, `_` and `.` become one word, all but the first with a capital.
  /// `qom-type` is `qomType`, `__org.qemu_x-foo` is `orgQemuXFoo`. What would begin with a digit, or be empty, begins with
  /// an `n`: `3des` is `n3des`.
  static func field(_ name: String) -> String {
    let joined = join(name, capitalizingFirst: false)
    return startsWithLetter(joined) ? joined : "n" + joined
  }

  /// For events, whose names shout: `BLOCK_JOB_COMPLETED` is `blockJobCompleted`.
  static func event(_ name: String) -> String { field(name.lowercased()) }

  /// For commands and types: `query-block` is `QueryBlock`, `device_add` is `DeviceAdd`.
  static func symbol(_ name: String) -> String {
    let joined = join(name, capitalizingFirst: true)
    return startsWithLetter(joined) ? joined : "N" + joined
  }

  private static func join(_ name: String, capitalizingFirst: Bool) -> String {
    var result: [UInt8] = []
    var capitalizes = capitalizingFirst
    for byte in name.utf8 {
      if isAlphanumeric(byte) {
        result.append(capitalizes && isLowercase(byte) ? byte - 0x20 : byte)
        capitalizes = false
      } else if capitalizingFirst || !result.isEmpty {
        capitalizes = true
      }
    }
    return String(decoding: result, as: UTF8.self)
  }

  private static func startsWithLetter(_ name: String) -> Bool {
    guard let first = name.utf8.first else { return false }
    return isLowercase(first | 0x20)
  }

  private static func isLowercase(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) }

  static func isAlphanumeric(_ byte: UInt8) -> Bool {
    isLowercase(byte | 0x20) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }

  /// Whether a reader who knows the rules can tell the name in QEMU from the one in Varlink.
  static func isObvious(_ field: String, for name: String) -> Bool {
    var guess: [UInt8] = []
    for byte in field.utf8 {
      if byte != byte | 0x20, isLowercase(byte | 0x20) { guess += [UInt8(ascii: "-"), byte | 0x20] } else { guess.append(byte) }
    }
    return name.utf8.elementsEqual(guess) || name == field
  }
}

/// The names of one scope that are taken.
struct NameScope {
  private var taken: Set<String> = []
  /// The number that the next one of a name gets; there may be thousands.
  private var numbers: [String: Int] = [:]
  /// What stands between a name and the number that makes it unique.
  private let separator: String

  /// - Parameter separator: `_` for fields; nothing for types and methods, whose grammar has no underscores.
  init(separator: String = "_") { self.separator = separator }

  /// The name itself if it is free, else with the first number from 2 on that makes it so.
  mutating func claim(_ name: String) -> String {
    if taken.insert(name).inserted { return name }
    var number = numbers[name] ?? 2
    while !taken.insert("\(name)\(separator)\(number)").inserted { number += 1 }
    numbers[name] = number + 1
    return "\(name)\(separator)\(number)"
  }
}
