/// Which faults are to come. What is chosen by chance depends on the seed and on the command's number only, so that a run can be had
/// again whatever else went on.
struct FaultPlan {
  private let seed: UInt64
  private let random: SimulatedQEMU.RandomFaults?
  private var faults: [SimulatedQEMU.Fault]

  init(_ faults: [SimulatedQEMU.Fault], random: SimulatedQEMU.RandomFaults?, seed: UInt64) {
    self.faults = faults
    self.random = random
    self.seed = seed
  }

  mutating func add(_ fault: SimulatedQEMU.Fault) { faults.append(fault) }

  /// The fault of a command that has come: the `number`-th of all, the `ownNumber`-th of its monitor.
  mutating func take(number: Int, monitor: String, ownNumber: Int) -> SimulatedQEMU.Fault.Kind? {
    let match = faults.firstIndex { $0.monitor == nil ? $0.command == number : $0.monitor == monitor && $0.command == ownNumber }
    if let match { return faults.remove(at: match).kind }
    guard let random, !random.kinds.isEmpty else { return nil }
    var chance = generator(number)
    guard Double.random(in: 0..<1, using: &chance) < random.rate else { return nil }
    return random.kinds.randomElement(using: &chance)
  }

  /// A reply with one to three of its bytes changed. The line's end stays, so that the client sees the damage at once.
  func garbled(_ reply: [UInt8], number: Int) -> [UInt8] {
    var chance = generator(number)
    var damaged = reply
    guard reply.count > 2 else { return reply }
    for _ in 0..<Int.random(in: 1...3, using: &chance) {
      let place = Int.random(in: 0..<reply.count - 2, using: &chance)
      // Any other byte than the one that belongs there.
      damaged[place] = reply[place] &+ UInt8.random(in: 1...255, using: &chance)
    }
    return damaged
  }

  private func generator(_ number: Int) -> SeededGenerator {
    SeededGenerator(seed: seed &+ UInt64(truncatingIfNeeded: number) &* 0x9E37_79B9_7F4A_7C15)
  }
}

/// SplitMix64: small, and the same everywhere.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
