import Glibc
import QMP
import SystemPackage
import SystemdEvent
import SystemdJSON

/// A drive that is there from the start: the image, or an extra one.
///
/// It is attached before the guest runs and stays: RemoveStorage and ReplaceStorage find it under its name and say that it is
/// immutable. In QEMU it is a device on a node for the format, on one for the file, of which QEMU gets a descriptor.
@EventLoopActor
struct StartDrive {
  /// systemd-vmspawn's name for the drive of that number.
  static func name(_ number: Int) -> String { "vmspawn-\(number)-disk" }

  /// The image is number 0.
  let number: Int
  let option: String
  let path: FilePath
  /// Nil finds out by looking, and takes no image that names other files.
  let format: ImageFormat?
  let type: StorageConfiguration
  /// What the guest writes goes elsewhere, and goes with the machine.
  var isEphemeral = false
  /// Whether the firmware is told to begin with it.
  var isFirst = false

  /// The commands, and the files that are to stay open until they are executed.
  ///
  /// - Parameter bus: the PCIe port, or the bus of the SCSI controller; nil leaves it to QEMU.
  func attachment(bus: String?) throws(OptionFailure) -> (DeviceAttachment, [BackingFile]) {
    let isReadOnly = type == .scsiCD || isEphemeral
    let backing = try open(isReadOnly: isReadOnly)
    let header = Qcow2.header(of: backing.raw)
    // The bytes may be a guest's, and name any file of the host: QEMU opens those only where the user has said what the image is.
    if format == nil, header?.refersToOtherFiles == true {
      throw OptionFailure(
        option,
        "it names other files (a backing file or a data file), as a guest could have it do: say --image-format=qcow2 if you trust it")
    }
    let format = format ?? ImageFormat(of: backing.raw)
    if format == .qcow2, header == nil { throw OptionFailure(option, "it is no qcow2 image") }
    let file = FileNode(
      id: Self.nodeID("i", number), set: -(2 * number + 1), backing,
      // What such an image names is relative to its own place, which a descriptor does not have.
      path: format == .qcow2 && header?.refersToOtherFiles == true ? absolute(path) : nil)
    guard isEphemeral, type != .scsiCD else {
      let node = Self.node(format, id: Self.name(number), on: file.id, isReadOnly: isReadOnly)
      return (DeviceAttachment(option: option, commands: file.commands + [node, deviceAdd(bus: bus)]), [backing])
    }
    let size = format == .qcow2 ? header?.size ?? 0 : backing.size
    let (overlay, commands) = try overlay(over: Self.nodeID("b", number), size: size)
    let base = Self.node(format, id: Self.nodeID("b", number), on: file.id, isReadOnly: true)
    return (DeviceAttachment(option: option, commands: file.commands + [base] + commands + [deviceAdd(bus: bus)]), [backing, overlay])
  }

  private func open(isReadOnly: Bool) throws(OptionFailure) -> BackingFile {
    let file: OwnedDescriptor
    do throws(SystemdError) {
      // Of a pipe nobody waits for the other end.
      file = try OpenFile.open(path, (isReadOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_NOCTTY)
    } catch {
      throw OptionFailure(option, "cannot open it: \(error.errno)")
    }
    do throws(StorageError) { return try BackingFile(file) } catch { throw OptionFailure(option, Self.words(for: error)) }
  }

  /// An empty qcow2 image over another node. It is made here, not by a job of QEMU's, whose end would have to be waited for.
  private func overlay(over base: String, size: Int) throws(OptionFailure) -> (BackingFile, [QMPCommand]) {
    // A qcow2 image is made of whole sectors.
    let size = (size + 511) / 512 * 512
    guard size <= Qcow2.largest else { throw OptionFailure("--ephemeral", "the image is larger than \(Qcow2.largest >> 40) TiB") }
    let overlay: BackingFile
    do {
      overlay = try BackingFile(try Qcow2.makeEmpty(size: size, in: UnnamedFile.folder))
    } catch {
      throw OptionFailure("--ephemeral", "\(error)")
    }
    let file = FileNode(id: Self.nodeID("o", number), set: -(2 * number + 2), overlay)
    let node = QMPCommand(
      "blockdev-add",
      .object([
        "driver": .string(ImageFormat.qcow2.rawValue), "node-name": .string(Self.name(number)), "file": .string(file.id),
        "backing": .string(base),
      ]))
    return (overlay, file.commands + [node])
  }

  private func deviceAdd(bus: String?) -> QMPCommand {
    QMPCommand(
      "device_add",
      .object([
        "driver": .string(type.driver), "id": .string(Self.name(number)), "drive": .string(Self.name(number)),
        "bus": bus.map { .string($0) }, "bootindex": isFirst ? .integer(1) : nil, "serial": serial.map { .string($0) },
      ]))
  }

  /// The guest finds a drive by the name of its file, as with systemd-vmspawn (/dev/disk/by-id/), if that fits. NVMe needs one.
  private var serial: String? {
    let name = path.lastComponent?.string ?? ""
    let longest = type.isSCSI ? 30 : 20
    let fits = (1...longest).contains(name.utf8.count) && name.unicodeScalars.allSatisfy { $0.value > 0x20 && $0.value < 0x7F }
    return fits ? name : type == .nvme ? Self.name(number) : nil
  }

  private static func nodeID(_ kind: String, _ number: Int) -> String { "\(Monitors.prefix)\(kind)\(number)" }

  private static func node(_ format: ImageFormat, id: String, on file: String, isReadOnly: Bool) -> QMPCommand {
    QMPCommand(
      "blockdev-add",
      .object([
        "driver": .string(format.rawValue), "node-name": .string(id), "file": .string(file), "read-only": .boolean(isReadOnly),
      ]))
  }

  private static func words(for error: StorageError) -> String {
    guard case .unsuitable(let errno, _) = error else { return "\(error)" }
    return errno == .isDirectory ? "it is a folder" : "it is neither a regular file nor a block device"
  }

  /// The path as QEMU, in the same working directory, could say it from anywhere.
  private func absolute(_ path: FilePath) -> FilePath {
    guard !path.isAbsolute, let folder = getcwd(nil, 0) else { return path }
    defer { free(folder) }
    return FilePath(String(cString: folder)).pushing(path)
  }
}
