import SystemPackage
import SystemdEvent
import SystemdJSON

@testable import Machine

/// Any firmware descriptor is refused with a reason, or names what is to be opened; and whether it fits can be asked.
@EventLoopActor
enum FirmwareTarget {
  static func run(_ bytes: [UInt8]) throws {
    guard let description = try? (bytes + [0]).withUnsafeBufferPointer({ try JSONVariant(parsingTerminated: $0) }) else { return }
    let firmware: FirmwareDescriptor
    do throws(OptionValueError) { firmware = try FirmwareDescriptor(description) } catch {
      return try demand(!error.description.isEmpty, "refused without a reason")
    }
    try demand(!firmware.executable.isEmpty && firmware.variables?.isEmpty != true, "\(firmware) names nothing to open")
    _ = firmware.fits(architecture: "x86_64", machine: "pc-q35-11.1")
    try demand(!(firmware.fits(secureBoot: true) && firmware.fits(secureBoot: false)), "\(firmware) has Secure Boot and has not")
  }
}
