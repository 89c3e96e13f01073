import Glibc
import Logging
import QMP
import SystemPackage
import SystemdEvent
import SystemdJSON

/// A folder of the host that the guest sees by virtiofs, which virtiofsd serves.
@EventLoopActor
struct SharedFolder {
  let option: String
  let source: FilePath
  /// What the guest mounts it by.
  let tag: String
  let isReadOnly: Bool
  let number: Int

  private static let places = ["virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd"]

  /// Starts virtiofsd, and gives what attaches its device.
  ///
  /// - Parameter bus: the PCIe port for it; nil leaves it to QEMU.
  func start(bus: String?, logger: Logger) throws(OptionFailure) -> (DeviceAttachment, OpenFile, DeviceProgram) {
    var status = stat()
    guard source.withPlatformString({ stat($0, &status) }) == 0 else {
      throw OptionFailure(option, "cannot open it: \(SystemdError.last("").errno)")
    }
    guard status.st_mode & S_IFMT == S_IFDIR else { throw OptionFailure(option, "it is no folder") }
    guard let program = DeviceProgram.find(Self.places) else {
      throw OptionFailure(option, "virtiofsd is not there: install the package 'virtiofsd'")
    }
    do throws(SystemdError) {
      // It takes a listening socket only, and one connection on that. QEMU's is made before it starts, and the socket's name and
      // folder, which is nobody else's, are gone again by then.
      var folder = FilePath("/tmp").temporaryName
      guard mkdtemp(&folder) != nil else { throw .last("mkdtemp") }
      defer { rmdir(folder) }
      let path = FilePath(String(decoding: folder.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)).appending("socket")
      let listening = try ListeningSocket(at: path)
      defer { listening.close() }
      let connected = OpenFile(try OwnedDescriptor.connected(to: path))
      let process = try ChildProcess(
        program, ["--fd=\(ChildProcess.firstDescriptor)", "--shared-dir=\(source)"] + (isReadOnly ? ["--readonly"] : []),
        descriptors: [listening.descriptorNumber], onLine: DeviceProgram.log(of: "virtiofsd", logger))
      return (attachment(connected, bus), connected, DeviceProgram(name: "virtiofsd", option: option, process: process))
    } catch {
      throw OptionFailure(option, "\(error)")
    }
  }

  private func attachment(_ socket: OpenFile, _ bus: String?) -> DeviceAttachment {
    let id = "\(Monitors.devicePrefix)v\(number)"
    let backend = JSONVariant.object([
      "type": .string("socket"),
      "data": .object([
        "addr": .object(["type": .string("fd"), "data": .object(["str": .string(id)])]), "server": .boolean(false),
      ]),
    ])
    return DeviceAttachment(
      option: option,
      commands: [
        QMPCommand("getfd", .object(["fdname": .string(id)]), descriptors: [socket.descriptor.raw]),
        QMPCommand("chardev-add", .object(["id": .string(id), "backend": backend])),
        QMPCommand(
          "device_add",
          .object([
            "driver": .string("vhost-user-fs-pci"), "id": .string(id), "chardev": .string(id), "tag": .string(tag),
            "bus": bus.map { .string($0) },
          ])),
      ])
  }
}
