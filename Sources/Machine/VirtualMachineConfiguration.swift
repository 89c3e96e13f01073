public import SystemPackage

/// What a virtual machine is made of, as its user says it.
public struct VirtualMachineConfiguration: Sendable {
  /// Which accelerator runs the guest's code.
  public enum Accelerator: String, Sendable, CaseIterable {
    /// KVM if it can run a guest here, else TCG.
    case auto
    case kvm
    case tcg
  }

  /// Where the guest's serial console goes.
  public enum Console: Sendable, Equatable {
    case none
    /// The terminal that the daemon was started on; `Ctrl-A x` ends QEMU.
    case terminal
    case file(FilePath)
  }

  public var name: MachineName
  /// The QEMU program; looked up on PATH if it is a bare name.
  public var qemu = "qemu-system-x86_64"
  /// A raw or qcow2 image, attached as the first disk.
  public var image: FilePath?
  /// Nil finds out by looking, and takes no image that names other files.
  public var imageFormat: ImageFormat?
  public var imageDiskType = StorageConfiguration.virtioBlock
  /// Whether what the guest writes to the image goes with the machine, and the image stays as it is.
  public var isEphemeral = false
  public var extraDrives: [ExtraDrive] = []
  /// A folder of the host that is the guest's root, over virtiofs.
  public var directory: FilePath?
  public var binds: [BindMount] = []
  /// Nil leaves it to QEMU.
  public var firmware: Firmware?
  /// Whether the firmware is to have Secure Boot; nil takes the first that starts any system, with Secure Boot or without, but
  /// with no keys in it.
  public var secureBoot: Bool?
  /// Whether the guest has a network card, on a network that QEMU plays.
  public var hasNetwork = false
  public var forwards: [PortForward] = []
  public var vsock = Tristate.no
  /// The guest's address on that; nil for one that follows from the machine's name.
  public var vsockAddress: UInt32?
  public var tpm = Tristate.no
  /// The folder that keeps the TPM's state; nil for a TPM that forgets.
  public var tpmState: FilePath?
  public var credentials: [Credential] = []
  /// Strings of SMBIOS type 11.
  public var smbiosStrings: [String] = []
  public var uuid: MachineUUID?
  public var kernel: FilePath?
  public var initrd: FilePath?
  /// The kernel's command line.
  public var append: String?
  /// In QEMU's syntax, such as `512M`.
  public var memory = "1G"
  public var cpus = 1
  public var accelerator = Accelerator.auto
  public var console = Console.none
  /// Where QEMU also listens for QMP, for a daemon that attaches to it when this one has gone; nil ends QEMU with this process,
  /// however that ends.
  public var socketForOthers: FilePath?
  /// Whether QEMU denies itself the system calls that it does not need; auto does without where QEMU was built so.
  public var sandbox = Tristate.auto
  /// Who QEMU runs as; nil for the user of this process.
  public var user: QEMUUser?
  /// Handed to QEMU as they are, behind everything else.
  public var qemuArguments: [String] = []

  public init(name: MachineName) { self.name = name }
}
