import Glibc
import QMP
import SystemPackage
import SystemdEvent
import SystemdJSON

/// The guest's side of AF_VSOCK, which the host's kernel serves.
@EventLoopActor
enum Vsock {
  private static let device: FilePath = "/dev/vhost-vsock"
  /// VHOST_VSOCK_SET_GUEST_CID of linux/vhost.h.
  private static let setAddress: UInt = 0x4008_AF60
  /// The addresses below are those of hosts.
  static let firstAddress: UInt32 = 3

  /// Opens the device and gives the guest an address: the one that is wished for, else one that follows from the machine's name.
  ///
  /// - Returns: nil if the host has none and the guest may do without.
  static func open(
    _ wish: Tristate, address: UInt32?, name: MachineName, option: String
  ) throws(OptionFailure) -> (device: OpenFile, address: UInt32)? {
    let file: OpenFile
    do throws(SystemdError) {
      file = OpenFile(try OpenFile.open(device, O_RDWR))
    } catch {
      if wish == .auto { return nil }
      let hint =
        error.errno == .noSuchFileOrDirectory || error.errno == Errno(rawValue: ENODEV) ? ": load the kernel module vhost_vsock" : ""
      throw OptionFailure(option, "cannot open \(device): \(error.errno)\(hint)")
    }
    // Another machine may have the first that comes to mind.
    let candidates = address.map { [$0] } ?? (0..<64).map { candidate(name, attempt: $0) }
    for candidate in candidates {
      var value = UInt64(candidate)
      if ioctl(file.descriptor.raw, setAddress, &value) == 0 { return (file, candidate) }
      guard errno == EADDRINUSE else { throw OptionFailure(option, "\(SystemdError.last("the address \(candidate)"))") }
    }
    throw OptionFailure(option, address == nil ? "no address is free" : "another machine has the address \(candidates[0])")
  }

  /// The address that a machine asks for first, second and so on; the same each time (FNV-1a).
  static func candidate(_ name: MachineName, attempt: Int) -> UInt32 {
    let hash = "\(name)/\(attempt)".utf8.reduce(UInt64(0xCBF2_9CE4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    return firstAddress + UInt32(hash % UInt64(UInt32.max - firstAddress - 1))
  }

  static func attachment(option: String, _ device: OpenFile, address: UInt32, bus: String?) -> DeviceAttachment {
    let id = JSONVariant.string("vsock0")
    return DeviceAttachment(
      option: option,
      commands: [
        QMPCommand("getfd", .object(["fdname": id]), descriptors: [device.descriptor.raw]),
        QMPCommand(
          "device_add",
          .object([
            "driver": .string("vhost-vsock-pci"), "id": id, "guest-cid": .integer(address), "vhostfd": id,
            "bus": bus.map { .string($0) },
          ])),
      ])
  }
}
