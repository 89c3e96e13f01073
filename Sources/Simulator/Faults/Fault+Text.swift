extension SimulatedQEMU.Fault {
  /// What a command line says of a fault that cannot be understood.
  public struct Unreadable: Error, CustomStringConvertible {
    public let description: String
  }

  /// Reads `KIND@[MONITOR/]N[:VALUE]`, such as `drop@3`, `delay@2:250ms`, `close@extra/1:after`, `fail@4:no such thing`.
  public init(parsing text: String) throws(Unreadable) {
    let (kind, rest) = try Self.split(text)
    let place = rest.prefix { $0 != ":" }
    let value = rest.dropFirst(place.count).dropFirst()
    let parts = place.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let number = Int(parts[parts.count - 1]), number > 0 else {
      throw Unreadable(description: "'\(place)' is not the number of a command, from 1, perhaps with MONITOR/ before it")
    }
    self.init(
      try Kind(kind, value: rest.contains(":") ? String(value) : nil), at: number, on: parts.count > 1 ? String(parts[0]) : nil)
  }

  fileprivate static func split(_ text: String) throws(Unreadable) -> (kind: String, rest: Substring) {
    guard let at = text.firstIndex(of: "@") else { throw Unreadable(description: "'\(text)' is not of the form KIND@N[:VALUE]") }
    return (String(text[..<at]), text[text.index(after: at)...])
  }
}

extension SimulatedQEMU.Fault.Kind {
  init(_ name: String, value: String?) throws(SimulatedQEMU.Fault.Unreadable) {
    switch (name, value) {
    case ("drop", nil): self = .drop
    case ("mute", nil): self = .mute
    case ("delay", let value):
      guard let delay = Duration(spelled: value ?? "1s") else {
        throw .init(description: "'\(value ?? "")' is not a duration such as 250ms or 2s")
      }
      self = .delay(delay)
    case ("garble", nil): self = .garble
    case ("close", nil), ("close", "before"): self = .close(afterExecution: false)
    case ("close", "after"): self = .close(afterExecution: true)
    case ("die", nil): self = .die
    case ("reorder", nil): self = .reorder
    case ("fail", let value): self = .fail(value ?? "simulated")
    case ("drop", _), ("mute", _), ("garble", _), ("die", _), ("reorder", _): throw .init(description: "'\(name)' takes no value")
    case ("close", _): throw .init(description: "'close' takes 'before' or 'after'")
    default: throw .init(description: "'\(name)' is not one of drop, mute, delay, garble, close, die, reorder, fail")
    }
  }
}

extension SimulatedQEMU.RandomFaults {
  /// Reads `random@RATE[:KIND,KIND...]`.
  public init(parsing text: String) throws(SimulatedQEMU.Fault.Unreadable) {
    let (name, rest) = try SimulatedQEMU.Fault.split(text)
    let number = rest.prefix { $0 != ":" }
    guard name == "random", let rate = Double(number), (0...1).contains(rate) else {
      throw .init(description: "'\(text)' is not of the form random@RATE[:KIND,KIND...], with a rate from 0 to 1")
    }
    guard rest.contains(":") else {
      self.init(rate: rate)
      return
    }
    var kinds: [SimulatedQEMU.Fault.Kind] = []
    for kind in rest.dropFirst(number.count + 1).split(separator: ",", omittingEmptySubsequences: false) {
      kinds.append(try .init(String(kind), value: nil))
    }
    self.init(rate: rate, kinds: kinds)
  }
}

extension Duration {
  /// Reads `250ms`, `2s` or `1.5s`.
  init?(spelled text: String) {
    let isMilliseconds = text.hasSuffix("ms")
    guard text.hasSuffix("s"), let number = Double(text.dropLast(isMilliseconds ? 2 : 1)), (0...86400).contains(number) else { return nil }
    self = .microseconds(Int64(number * (isMilliseconds ? 1000 : 1_000_000)))
  }
}
