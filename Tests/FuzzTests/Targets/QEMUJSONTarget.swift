import QEMUJSON

/// QEMU's JSON: what is read and written again is read as the same, and both of QEMU's ways to put tokens together agree on what is
/// right.
enum QEMUJSONTarget {
  static func run(_ bytes: [UInt8]) throws {
    var incremental = JSONInput(keeping: .compact)
    var outcomes: [JSONInput.Outcome] = []
    for byte in bytes {
      var completed: [JSONInput.Outcome] = []
      incremental.feed(byte, into: &completed)
      for case .value(let value) in completed {
        try check(value)
        // Two values may end with one byte, and only the last one's text is kept.
        if completed.count == 1 { try checkText(incremental.lastText, value) }
      }
      outcomes += completed
    }
    var whole = JSONInput(assembly: .whole)
    var others: [JSONInput.Outcome] = []
    for byte in bytes { whole.feed(byte, into: &others) }
    let (right, alsoRight) = (outcomes.prefix(while: \.isValue), others.prefix(while: \.isValue))
    try demand(right.elementsEqual(alsoRight), "token by token \(outcomes), at the end \(others)")
  }

  private static func check(_ value: QObject) throws {
    let text = value.text
    // C's inf, which is no JSON, is what QEMU writes for a number that is too large.
    guard !text.contains("inf") else { return }
    let again = try read(text)
    // A number such as 2e1 is another kind of number once it has been written.
    try demand(again == value || text.contains { "eE.0123456789".contains($0) }, "\(text) is read as \(again.text)")
    // What shares a chain of QEMU's hash table changes places each time.
    let back = try read(again.text)
    // What is too small and negative is written as -0, which is read as an integer.
    try demand(back.text == text || text.contains(/-0(?![.0-9e])/), "\(text) becomes \(back.text)")
    let pretty = String(decoding: value.encoded(pretty: true), as: UTF8.self)
    try demand(try read(pretty) == again, "pretty, it is \(pretty)")
  }

  private static func read(_ text: String) throws(Violation) -> QObject {
    do { return try QObject(parsing: text) } catch { throw Violation(description: "\(text) is written and not read: \(error)") }
  }

  private static func checkText(_ text: [UInt8], _ value: QObject) throws {
    var input = JSONInput()
    var outcomes: [JSONInput.Outcome] = []
    for byte in text + [UInt8(ascii: " ")] { input.feed(byte, into: &outcomes) }
    try demand(outcomes == [.value(value)], "compact, it is \(readable(text)), which is \(outcomes)")
  }
}

extension JSONInput.Outcome {
  fileprivate var isValue: Bool { if case .value = self { true } else { false } }
}
