/// The PCIe ports for the devices that are there from the start, one each: a q35 takes a device that is added by QMP nowhere else,
/// even before the guest runs. They are beside those for hotplug, which stay free.
struct StartPorts {
  /// How many there may be: four slots of the root bus.
  static let most = 32

  /// How many are needed.
  private(set) var count = 0
  /// Whether the machine can have them. Others, such as `pc`, take devices on their one bus.
  let arePossible: Bool

  init(qemuArguments: [String]) {
    let type = Self.machineType(qemuArguments)
    arePossible = type.map { $0.contains("q35") || $0.hasPrefix("virt") } ?? true
  }

  /// The machine type that the user's arguments choose; nil if they say nothing of the machine, which is our q35 then.
  static func machineType(_ qemuArguments: [String]) -> String? {
    let options: Set = ["-machine", "--machine", "-M"]
    guard let place = qemuArguments.lastIndex(where: options.contains), place + 1 < qemuArguments.count else { return nil }
    let parts = qemuArguments[place + 1].split(separator: ",")
    if let named = parts.last(where: { $0.hasPrefix("type=") }) { return String(named.dropFirst("type=".count)) }
    // With properties alone it is QEMU's own choice.
    guard let first = parts.first, !first.contains("=") else { return "pc" }
    return String(first)
  }

  static func id(_ number: Int) -> String { "\(Monitors.prefix)c\(number)" }

  /// The bus for one more device; nil leaves it to QEMU.
  mutating func take() throws(OptionValueError) -> String? {
    guard arePossible else { return nil }
    guard count < Self.most else { throw OptionValueError("there is room for \(Self.most) devices at the start, and this is one more") }
    count += 1
    return Self.id(count - 1)
  }

  /// The arguments that make those that were taken, in slots behind the ones for hotplug.
  var arguments: [String] {
    (0..<count).flatMap { number in
      let address = "0x\(String(0x12 + number / 8, radix: 16)).\(number % 8)"
      let sharesSlot = number % 8 == 0 ? ",multifunction=on" : ""
      return ["-device", "pcie-root-port,id=\(Self.id(number)),bus=pcie.0,chassis=\(200 + number),addr=\(address)\(sharesSlot)"]
    }
  }
}
