import ArgumentParser
import Glibc
import Machine
import SystemPackage

/// The guest's firmware, network and other devices, and what it is told of itself. Names and values are systemd-vmspawn's where that
/// has them.
struct DeviceOptions: ParsableArguments {
  @Option(
    name: .long,
    help: ArgumentHelp(
      "The firmware: QEMU's own BIOS, a UEFI that the host describes, none (with --kernel), or a firmware descriptor.",
      valueName: "bios|uefi|none|path"),
    transform: { try Firmware(parsing: $0) })
  var firmware: Firmware?

  @Option(
    name: .long, help: ArgumentHelp("Whether --firmware=uefi takes one with Secure Boot.", valueName: "yes|no|auto"),
    transform: parseTristate)
  var secureBoot = Tristate.auto

  @Option(name: .long, help: ArgumentHelp("The guest's network: none, or one that QEMU plays.", valueName: "none|user"))
  var network: NetworkKind?

  @Flag(name: .long, help: "The same as --network=user.")
  var networkUserMode = false

  @Option(
    name: .long, parsing: .singleValue,
    help: ArgumentHelp(
      "A port of the host that leads to one of the guest, with --network=user; may be repeated. The address is 127.0.0.1 unless said.",
      valueName: "[tcp:|udp:][address:]hostport:guestport"),
    transform: { try PortForward(parsing: $0) })
  var forward: [PortForward] = []

  @Option(
    name: .long, help: ArgumentHelp("Whether the guest has AF_VSOCK; auto: if the host has it.", valueName: "yes|no|auto"),
    transform: parseTristate)
  var vsock: Tristate?

  @Option(name: .long, help: ArgumentHelp("The guest's address there. Default: made from the machine's name.", valueName: "number"))
  var vsockCid: UInt32?

  @Option(
    name: .long, help: ArgumentHelp("Whether the guest has a TPM 2.0; auto: if swtpm is installed.", valueName: "yes|no|auto"),
    transform: parseTristate)
  var tpm: Tristate?

  @Option(
    name: .long,
    help: ArgumentHelp("The folder that keeps the TPM's state. Default: a TPM that forgets when the machine ends.", valueName: "off|path"),
    completion: .directory)
  var tpmState: FilePath?

  @Option(
    name: [.long, .customLong("credential")], parsing: .singleValue,
    help: ArgumentHelp("A credential for the guest's systemd, with C's escapes; may be repeated.", valueName: "name:value"))
  var setCredential: [String] = []

  @Option(
    name: .long, parsing: .singleValue,
    help: ArgumentHelp("The same from a file, or from a credential of the daemon's own service; may be repeated.", valueName: "name:path"),
    completion: .file(),
    transform: { text in
      try Credential(file: text, option: "--load-credential") { getenv($0).map { String(cString: $0) } }
    })
  var loadCredential: [Credential] = []

  @Option(
    name: [.customShort("s"), .long], parsing: .singleValue,
    help: ArgumentHelp("A string of the guest's SMBIOS, of type 11; may be repeated.", valueName: "string"))
  var smbios11: [String] = []

  @Option(name: .long, help: ArgumentHelp("The machine's UUID.", valueName: "uuid"), transform: { try MachineUUID(parsing: $0) })
  var uuid: MachineUUID?

  /// The values of `--network`.
  enum NetworkKind: String, ExpressibleByArgument, CaseIterable {
    case none, user
  }

  private var hasNetwork: Bool { network == .user || networkUserMode }

  func validate() throws {
    if network == NetworkKind.none, networkUserMode { throw ValidationError("--network=none cannot be used with --network-user-mode.") }
    if !hasNetwork, !forward.isEmpty { throw ValidationError("--forward needs --network=user.") }
    if secureBoot != .auto, firmware != .uefi { throw ValidationError("--secure-boot needs --firmware=uefi.") }
    if let vsockCid {
      guard vsock != .no else { throw ValidationError("--vsock-cid cannot be used with --vsock=no.") }
      // The others are hosts and wildcards.
      guard (3..<UInt32.max).contains(vsockCid) else { throw ValidationError("--vsock-cid must be 3 to 4294967294.") }
    }
    if tpmState != nil, tpmState != "off", tpm == .no { throw ValidationError("--tpm-state cannot be used with --tpm=no.") }
    if tpmState?.string.contains(",") == true { throw ValidationError("--tpm-state must not have a comma: swtpm cannot be told of it.") }
    _ = try literalCredentials()
    for string in smbios11 where string.isEmpty || string.utf8.contains(0) {
      throw ValidationError("A string of --smbios11 must not be empty.")
    }
  }

  /// The credentials on the command line. Not parsed by the argument parser, which would repeat a value, that may be secret, in its
  /// complaint.
  private func literalCredentials() throws -> [Credential] {
    try setCredential.map { text in
      do throws(OptionValueError) { return try Credential(literal: text, option: "--set-credential") } catch {
        throw ValidationError("--set-credential: \(error).")
      }
    }
  }

  func apply(to configuration: inout VirtualMachineConfiguration) throws {
    configuration.firmware = firmware
    configuration.secureBoot = secureBoot == .auto ? nil : secureBoot == .yes
    configuration.hasNetwork = hasNetwork
    configuration.forwards = forward
    // Who gives an address wants to be found there.
    configuration.vsock = vsock ?? (vsockCid == nil ? .no : .yes)
    configuration.vsockAddress = vsockCid
    configuration.tpmState = tpmState == "off" ? nil : tpmState
    configuration.tpm = tpm ?? (configuration.tpmState == nil ? .no : .yes)
    configuration.credentials = try literalCredentials() + loadCredential
    configuration.smbiosStrings = smbios11
    configuration.uuid = uuid
  }
}

/// A boolean as systemd takes it, or `auto`.
@Sendable func parseTristate(_ text: String) throws -> Tristate {
  guard let value = Tristate(parsing: text) else { throw ValidationError("'\(text)' is none of yes, no and auto") }
  return value
}
