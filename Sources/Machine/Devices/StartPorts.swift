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
    let options: Set = ["-machine", "--machine", "-M"]
    guard let place = qemuArguments.lastIndex(where: options.contains), place + 1 < qemuArguments.count else {
      arePossible = true
      return
    }
    let type = qemuArguments[place + 1].split(separator: ",").first.map { $0.hasPrefix("type=") ? $0.dropFirst(5) : $0 } ?? ""
    arePossible = type.contains("q35") || type.hasPrefix("virt")
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
