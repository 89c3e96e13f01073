import ArgumentParser
import Control
import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON

/// `qmpctl storage`
struct StorageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "storage",
    abstract: "Add drives to a machine that runs, remove and replace them.",
    subcommands: [StorageAddCommand.self, StorageRemoveCommand.self, StorageReplaceCommand.self])
}

/// Which drive of which machine.
struct DriveOptions: ParsableArguments {
  @OptionGroup var machine: MachineOptions

  @Argument(help: ArgumentHelp("What the drive is called.", valueName: "drive"))
  var drive: String

  func validate() throws {
    guard !drive.isEmpty else { throw ValidationError("A drive's name must not be empty.") }
  }
}

/// What is put into a drive.
struct DriveFileOptions: ParsableArguments {
  @Argument(
    help: ArgumentHelp("A file or block device. Its contents are taken as they are: there is no image format.", valueName: "path"),
    completion: .file())
  var path: String

  @Flag(name: [.customShort("r"), .long], help: "The guest must not write to it.")
  var readOnly = false

  /// Opens it.
  func open(readOnly: Bool) throws -> OwnedDescriptor {
    var status = stat()
    guard stat(path, &status) == 0 else { throw ControlError(.failed, "\(path): \(Errno(rawValue: errno))") }
    // To open anything else can take for ever, or do something.
    guard [S_IFREG, S_IFBLK].contains(status.st_mode & S_IFMT) else {
      throw ControlError(.failed, "\(path) is neither a file nor a block device")
    }
    let raw = Glibc.open(path, (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC)
    guard raw >= 0 else {
      let errno = Errno(rawValue: Glibc.errno)
      let mayHelp = !readOnly && [.permissionDenied, .readOnlyFileSystem].contains(errno)
      throw ControlError(.failed, "\(path): \(errno)", hint: mayHelp ? "With --read-only it need not be writable." : nil)
    }
    return OwnedDescriptor(owning: raw)
  }
}

/// `qmpctl storage add`
struct StorageAddCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "add",
    abstract: "Add a drive to a machine that runs.",
    discussion: "The file is opened here and handed to the machine. With --host it is a file of that host, which must have qmpctl.")

  @OptionGroup var drive: DriveOptions
  @OptionGroup var file: DriveFileOptions

  @Option(
    name: .long, help: ArgumentHelp("How the guest sees the drive. Default: virtio-blk.", valueName: "virtio-blk|virtio-scsi|nvme|scsi-cd"),
    completion: .list(["virtio-blk", "virtio-scsi", "nvme", "scsi-cd"]))
  var config: String?

  @OptionGroup var output: OutputOptions

  func execute() async throws -> CInt {
    let isReadOnly = file.readOnly || config == "scsi-cd"
    if let host = drive.machine.host {
      let options = (isReadOnly ? ["--read-only"] : []) + (config.map { ["--config=\($0)"] } ?? [])
      _ = try await host.run(
        ["storage", "add"] + options + ["--", drive.machine.name, drive.drive, file.path], within: drive.machine.time.limit)
    } else {
      let descriptor = try file.open(readOnly: isReadOnly)
      let parameters = JSONVariant.object([
        "fileDescriptorIndex": .integer(0), "name": .string(drive.drive), "config": config.map { .string($0) },
      ])
      let connection = try await drive.machine.connect()
      _ = try await connection.call("io.systemd.MachineInstance.AddStorage", parameters, descriptors: [descriptor.raw])
    }
    if output.json { try output.write(.object([])) }
    return 0
  }
}

/// `qmpctl storage replace`
struct StorageReplaceCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "replace",
    abstract: "Put another file or block device under a drive that 'storage add' made.",
    discussion: "For the guest, the drive stays. With --host it is a file of that host, which must have qmpctl.")

  @OptionGroup var drive: DriveOptions
  @OptionGroup var file: DriveFileOptions
  @OptionGroup var output: OutputOptions

  func execute() async throws -> CInt {
    if let host = drive.machine.host {
      _ = try await host.run(
        ["storage", "replace"] + (file.readOnly ? ["--read-only"] : []) + ["--", drive.machine.name, drive.drive, file.path],
        within: drive.machine.time.limit)
    } else {
      let descriptor = try file.open(readOnly: file.readOnly)
      let parameters = JSONVariant.object([("fileDescriptorIndex", .integer(0)), ("name", .string(drive.drive))])
      let connection = try await drive.machine.connect()
      _ = try await connection.call("io.systemd.MachineInstance.ReplaceStorage", parameters, descriptors: [descriptor.raw])
    }
    if output.json { try output.write(.object([])) }
    return 0
  }
}

/// `qmpctl storage remove`
struct StorageRemoveCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "remove",
    abstract: "Remove a drive that 'storage add' made.",
    discussion: """
      Returns when the guest has been asked. The drive is gone when the guest has let go of it, which 'qmpctl events' tells as \
      DEVICE_DELETED.
      """)

  @OptionGroup var drive: DriveOptions
  @OptionGroup var output: OutputOptions

  func execute() async throws -> CInt {
    let connection = try await drive.machine.connect()
    let reply = try await connection.call("io.systemd.MachineInstance.RemoveStorage", .object([("name", .string(drive.drive))]))
    if output.json { try output.write(reply) }
    return 0
  }
}
