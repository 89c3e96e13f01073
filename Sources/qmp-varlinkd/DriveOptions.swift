public import ArgumentParser
public import Machine
import SystemPackage

/// The guest's disks and folders. Names and values are systemd-vmspawn's.
struct DriveOptions: ParsableArguments {
  @Option(
    name: [.customShort("i"), .long],
    help: ArgumentHelp("The disk image to boot from, raw or qcow2, or a block device.", valueName: "path"),
    completion: .file())
  var image: FilePath?

  @Option(
    name: .long,
    help: ArgumentHelp(
      "The format of the image. Default: found out by looking; one that names other files must be said.", valueName: "raw|qcow2"))
  var imageFormat: ImageFormat?

  @Option(
    name: .long,
    help: ArgumentHelp("How the guest sees the image.", valueName: "virtio-blk|virtio-scsi|nvme|scsi-cd"))
  var imageDiskType = StorageConfiguration.virtioBlock

  @Flag(
    name: [.customShort("x"), .long],
    help: "What the guest writes to the image goes with the machine; the image stays as it is. Not with --extra-drive.")
  var ephemeral = false

  @Option(
    name: .long, parsing: .singleValue,
    help: ArgumentHelp(
      "Another drive; may be repeated. Its format is raw unless said, its disk type that of the image.",
      valueName: "[format:][disktype:]path"),
    completion: .file(), transform: { try ExtraDrive(parsing: $0) })
  var extraDrive: [ExtraDrive] = []

  @Option(
    name: [.customShort("D"), .long],
    help: ArgumentHelp("A folder that is the guest's root, instead of an image. Needs --kernel and virtiofsd.", valueName: "path"),
    completion: .directory)
  var directory: FilePath?

  @Option(
    name: .long, parsing: .singleValue,
    help: ArgumentHelp(
      "A folder that the guest's systemd mounts, at the same path unless said; may be repeated. Needs virtiofsd.",
      valueName: "source[:target]"),
    completion: .directory, transform: { try BindMount(parsing: $0, isReadOnly: false) })
  var bind: [BindMount] = []

  @Option(
    name: .long, parsing: .singleValue, help: ArgumentHelp("The same, for reading only; may be repeated.", valueName: "source[:target]"),
    completion: .directory, transform: { try BindMount(parsing: $0, isReadOnly: true) })
  var bindRo: [BindMount] = []

  func validate() throws {
    if image == nil, let option = ephemeral ? "--ephemeral" : imageFormat != nil ? "--image-format" : nil {
      throw ValidationError("\(option) needs --image.")
    }
    // It could mean all drives or one.
    if ephemeral, !extraDrive.isEmpty { throw ValidationError("--ephemeral cannot be used with --extra-drive.") }
    if image != nil, directory != nil { throw ValidationError("--image cannot be used with --directory.") }
  }

  func apply(to configuration: inout VirtualMachineConfiguration) {
    configuration.image = image
    configuration.imageFormat = imageFormat
    configuration.imageDiskType = imageDiskType
    configuration.isEphemeral = ephemeral
    configuration.extraDrives = extraDrive
    configuration.directory = directory
    configuration.binds = bind + bindRo
  }
}

extension ImageFormat: ExpressibleByArgument {}
extension StorageConfiguration: ExpressibleByArgument {}
