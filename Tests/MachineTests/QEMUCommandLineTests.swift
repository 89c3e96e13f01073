import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import Machine

@Suite(.onEventLoop) struct QEMUCommandLineTests {
  @EventLoopActor
  private func arguments(
    kvm: Bool = false, format: ImageFormat? = nil, endsWithParent: Bool = false,
    _ configure: (inout VirtualMachineConfiguration) -> Void = { _ in }
  ) throws -> [String] {
    var configuration = VirtualMachineConfiguration(name: try #require(MachineName("web-1.example")))
    configure(&configuration)
    return QEMUCommandLine(configuration, useKVM: kvm, imageFormat: format, endsWithParent: endsWithParent).arguments
  }

  @Test("the least that a machine needs") @EventLoopActor
  func least() throws {
    #expect(
      try arguments() == [
        "-name", "guest=web-1.example", "-no-user-config", "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "1G", "-smp",
        "1",
        "-chardev", "socket,id=qv-control,fd=3", "-qmp", "chardev:qv-control", "-machine", "q35", "-cpu", "max",
      ] + Self.ports)
  }

  /// Ten ports for storage that comes later, in two slots.
  private static let ports = (0..<10).flatMap { number in
    let place = number < 8 ? "0x10.\(number)" : "0x11.\(number - 8)"
    let shared = number == 0 || number == 8 ? ",multifunction=on" : ""
    return ["-device", "pcie-root-port,id=qv-p\(number),bus=pcie.0,chassis=\(240 + number),addr=\(place)\(shared)"]
  }

  @Test("QEMU ends with the daemon, unless others are to find it") @EventLoopActor
  func endsWithParent() throws {
    let ending = try arguments(endsWithParent: true)
    #expect(ending[16...17] == ["-run-with", "exit-with-parent=on"])
    let kept = try arguments(endsWithParent: true) { $0.socketForOthers = "/run/a,b/qmp" }
    #expect(kept[16...17] == ["-qmp", "unix:/run/a,,b/qmp,server=on,wait=off"])
    #expect(!kept.contains("-run-with"))
  }

  @Test(
    "a QEMU that does not know how to end with its parent is known by its words",
    arguments: [
      ("qemu-system-x86_64: -run-with: invalid option", true),
      ("qemu-system-x86_64: -run-with exit-with-parent=on: Invalid parameter 'exit-with-parent'", true),
      ("qemu-system-x86_64: -device nonsense: 'nonsense' is not a valid device model name", false),
      ("qemu-system-x86_64: -run-with user=x: no such user", false),
    ])
  @EventLoopActor
  func oldQEMU(words: String, isOld: Bool) { #expect(QEMUCommandLine.refusesEndWithParent(["warning", words]) == isOld) }

  @Test("everything at once") @EventLoopActor
  func everything() throws {
    let arguments = try arguments(kvm: true, format: .qcow2) {
      $0.image = "/images/disk.qcow2"
      $0.kernel = "/boot/vm linuz"
      $0.initrd = "/boot/initrd"
      $0.append = "console=ttyS0 quiet"
      $0.memory = "512M"
      $0.cpus = 4
      $0.console = .file("/logs/a,b,,c")
      $0.qemuArguments = ["-device", "virtio-rng-pci", "--", "-S"]
    }
    #expect(arguments[6...11] == ["-accel", "kvm", "-m", "512M", "-smp", "4"])
    let q35 = ["-machine", "q35", "-cpu", "host"] + Self.ports
    #expect(Array(arguments[16...].prefix(q35.count)) == q35)
    #expect(
      arguments[(16 + q35.count)...] == [
        "-blockdev", #"{"driver":"qcow2","node-name":"disk","file":{"driver":"file","filename":"/images/disk.qcow2"}}"#, "-device",
        "virtio-blk-pci,drive=disk,bootindex=1", "-kernel", "/boot/vm linuz", "-initrd", "/boot/initrd", "-append",
        "console=ttyS0 quiet", "-chardev", "file,id=console,path=/logs/a,,b,,,,c", "-serial", "chardev:console", "-device",
        "virtio-rng-pci", "--", "-S",
      ])
  }

  @Test("an image's path is told as it is", arguments: ["/a b", "/a\"b\\c", "/a,b=c", "/ü/🐚", "/a\nb", "-"]) @EventLoopActor
  func imagePath(path: String) throws {
    let arguments = try arguments(format: .raw) { $0.image = FilePath(path) }
    let place = try #require(arguments.firstIndex(of: "-blockdev"))
    let node = try JSONVariant(parsing: arguments[place + 1])
    #expect(node["driver"]?.string == "raw")
    #expect(node["file"]?["filename"]?.string == path)
  }

  @Test("who names a machine type has named the processor too", arguments: ["-machine", "--machine", "-M"]) @EventLoopActor
  func ownMachine(option: String) throws {
    let arguments = try arguments { $0.qemuArguments = [option, "none"] }
    #expect(!arguments.contains("q35") && !arguments.contains("-cpu") && !arguments.contains { $0.contains("root-port") })
    #expect(arguments.suffix(2) == [option, "none"])
  }

  @Test("the terminal is the guest's, Ctrl-C included") @EventLoopActor
  func terminal() throws {
    let arguments = try arguments { $0.console = .terminal }
    #expect(arguments.suffix(4) == ["-chardev", "stdio,id=console,mux=on,signal=off", "-serial", "chardev:console"])
  }
}
