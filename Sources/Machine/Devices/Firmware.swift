public import SystemPackage

/// The firmware that the guest starts with; the values of systemd-vmspawn's `--firmware=` that name one.
public enum Firmware: Sendable, Equatable {
  /// QEMU's own, which is a BIOS on x86.
  case bios
  /// None that a user sees: for kernels that are booted directly. On x86 QEMU needs its BIOS even for these.
  case none
  /// The first UEFI that fits, of those that the host describes.
  case uefi
  /// What a firmware descriptor (docs/interop/firmware.json of QEMU) says.
  case descriptor(FilePath)

  public init(parsing text: String) throws(OptionValueError) {
    switch text {
    case "bios": self = .bios
    case "none": self = .none
    case "uefi": self = .uefi
    default:
      guard text.contains("/") else {
        throw OptionValueError("'\(text)' is none of bios, uefi and none, and not the path of a firmware descriptor: that has a slash")
      }
      self = .descriptor(FilePath(text))
    }
  }
}
