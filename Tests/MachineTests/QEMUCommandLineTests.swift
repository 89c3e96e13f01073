import QMP
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import Machine

@Suite(.onEventLoop) struct QEMUCommandLineTests {
  @EventLoopActor
  private func arguments(
    kvm: Bool = false, endsWithParent: Bool = false, isSandboxed: Bool = false, devices: CommandLineDevices? = nil,
    _ configure: (inout VirtualMachineConfiguration) -> Void = { _ in }
  ) throws -> [String] {
    var configuration = VirtualMachineConfiguration(name: try #require(MachineName("web-1.example")))
    configure(&configuration)
    let parts = devices ?? CommandLineDevices(ports: StartPorts(qemuArguments: configuration.qemuArguments))
    return QEMUCommandLine(configuration, useKVM: kvm, devices: parts, endsWithParent: endsWithParent, isSandboxed: isSandboxed)
      .arguments
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

  @Test("QEMU denies itself what it should not need; to start programs only where its arguments may want it") @EventLoopActor
  func sandbox() throws {
    let sandboxed = try arguments(isSandboxed: true)
    let place = try #require(sandboxed.firstIndex(of: "-sandbox"))
    #expect(sandboxed[place + 1] == "on,obsolete=deny,elevateprivileges=deny,resourcecontrol=deny,spawn=deny")
    for own in ["tap,id=n", "user,id=n,smb=/srv", "user,id=n,guestfwd=tcp:10.0.2.100:1234-cmd:cat", "bridge,br=b"] {
      let spawning = try arguments(isSandboxed: true) { $0.qemuArguments = ["-netdev", own] }
      #expect(spawning[place + 1] == "on,obsolete=deny,elevateprivileges=deny,resourcecontrol=deny", "\(own)")
    }
    #expect(!(try arguments().contains("-sandbox")))
    #expect(QEMUSandbox.isSaid(in: ["-sandbox", "off"]) && QEMUSandbox.isSaid(in: ["--sandbox"]) && !QEMUSandbox.isSaid(in: ["-s"]))
  }

  @Test(
    "a QEMU that has no sandbox is known by its words",
    arguments: [
      ("qemu: -sandbox on,spawn=deny: There is no option group 'sandbox'", true), ("qemu: -sandbox: invalid option", true),
      ("qemu: sandboxing request but seccomp is not compiled into this build", true),
      ("qemu: failed to install seccomp syscall filter in the kernel", true),
      ("qemu: Could not open '/srv/sandbox/seccomp': No such file or directory", false), ("", false),
    ])
  func unsandboxed(words: String, isRefused: Bool) { #expect(QEMUSandbox.isRefused(["warning", words]) == isRefused) }

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

  @Test(
    "whether a reset ends QEMU is in the user's arguments, the last of them",
    arguments: [
      ([], false), (["-no-reboot"], true), (["--no-reboot"], true), (["-action", "panic=none,reboot=shutdown"], true),
      (["--action", "reboot=shutdown"], true), (["-action", "reboot=reset"], false), (["-no-reboot", "-action", "reboot=reset"], false),
      (["-action", "shutdown=pause"], false), (["-action"], false),
    ] as [([String], Bool)])
  @EventLoopActor
  func endsAtReset(arguments: [String], ends: Bool) async throws {
    #expect(QEMUCommandLine.endsAtReset(arguments) == ends)
    var configuration = VirtualMachineConfiguration(name: try #require(MachineName("test")))
    configuration.qemuArguments = arguments
    let commands = try await StartDevices.prepare(configuration, logger: ScriptedQEMU.silent).resetCommands
    #expect(commands.map(\.name) == (ends ? ["set-action", "system_reset", "set-action"] : ["system_reset"]))
    #expect(commands.compactMap { $0.arguments?["reboot"]?.string } == (ends ? ["reset", "shutdown"] : []))
  }

  @Test("everything at once") @EventLoopActor
  func everything() throws {
    let arguments = try arguments(kvm: true) {
      // Comes by QMP.
      $0.image = "/images/disk.qcow2"
      $0.kernel = "/boot/vm linuz"
      $0.initrd = "/boot/initrd"
      $0.append = "console=ttyS0 quiet"
      $0.memory = "512M"
      $0.cpus = 4
      $0.console = .file("/logs/a,b,,c")
      $0.uuid = try? MachineUUID(parsing: "0123456789ABCDEF0123456789ABCDEF")
      $0.qemuArguments = ["-device", "virtio-rng-pci", "--", "-S"]
    }
    #expect(arguments[6...11] == ["-accel", "kvm", "-m", "512M", "-smp", "4"])
    let q35 = ["-machine", "q35", "-cpu", "host"] + Self.ports
    #expect(Array(arguments[16...].prefix(q35.count)) == q35)
    #expect(
      arguments[(16 + q35.count)...] == [
        "-uuid", "01234567-89ab-cdef-0123-456789abcdef", "-kernel", "/boot/vm linuz", "-initrd", "/boot/initrd", "-append",
        "console=ttyS0 quiet", "-chardev", "file,id=console,path=/logs/a,,b,,,,c", "-serial", "chardev:console", "-device",
        "virtio-rng-pci", "--", "-S",
      ])
  }

  @Test("devices that come by QMP find ports of their own, behind those for hotplug, and a guest that waits") @EventLoopActor
  func startPorts() throws {
    var devices = CommandLineDevices(ports: StartPorts(qemuArguments: []))
    for _ in 0..<9 { _ = try devices.ports.take() }
    devices.waitsForDevices = true
    let arguments = try arguments(devices: devices)
    let own = (0..<9).flatMap { number in
      let place = number < 8 ? "0x12.\(number)" : "0x13.0"
      let shared = number % 8 == 0 ? ",multifunction=on" : ""
      return ["-device", "pcie-root-port,id=qv-c\(number),bus=pcie.0,chassis=\(200 + number),addr=\(place)\(shared)"]
    }
    #expect(arguments.suffix(own.count + 1) == own + ["-S"])
    #expect(arguments.filter { $0.contains("id=qv-p") }.count == HotplugPorts.count)
  }

  @Test("firmware, TPM, SMBIOS and shared memory are on the command line, by the numbers of what QEMU inherits") @EventLoopActor
  func commandLineDevices() throws {
    let file = OpenFile(try UnnamedFile.make([1]))
    let firmware = try FirmwareDescriptor(
      try JSONVariant(
        parsing: #"""
          {"interface-types": ["uefi"], "features": ["requires-smm"], "mapping": {"device": "flash",
           "executable": {"filename": "/f/CODE", "format": "raw"}, "nvram-template": {"filename": "/f/VARS", "format": "raw"}}}
          """#))
    var devices = CommandLineDevices(ports: StartPorts(qemuArguments: []))
    devices.add(smbios: file)
    devices.add(firmware, variables: file)
    devices.add(tpm: file)
    devices.shareMemory("size=512,maxmem=1G")
    #expect(devices.inherited.count == 3)
    #expect(
      devices.arguments == [
        "-smbios", "type=11,path=/dev/fd/4", "-blockdev",
        #"{"driver":"raw","node-name":"qv-code","read-only":true,"file":{"driver":"file","filename":"/f/CODE","read-only":true}}"#,
        "-blockdev",
        #"{"driver":"raw","node-name":"qv-vars","read-only":false,"file":{"driver":"file","filename":"/dev/fd/5","read-only":false}}"#,
        "-global", "driver=cfi.pflash01,property=secure,value=on", "-chardev", "socket,id=qv-.tpm,fd=6", "-tpmdev",
        "emulator,id=qv-.tpm,chardev=qv-.tpm", "-device", "tpm-tis,tpmdev=qv-.tpm", "-object",
        "memory-backend-memfd,id=qv-.ram,share=on,size=512M",
      ])
    #expect(devices.machineArguments == ["-machine", "pflash0=qv-code,pflash1=qv-vars,smm=on,memory-backend=qv-.ram"])
  }

  @Test("words for the kernel go behind the user's, and nowhere without a kernel") @EventLoopActor
  func kernelWords() throws {
    var devices = CommandLineDevices(ports: StartPorts(qemuArguments: []))
    devices.kernelWords = ["root=root", "rw"]
    let with = try arguments(devices: devices) {
      $0.kernel = "/k"
      $0.append = "quiet"
    }
    #expect(with.suffix(2) == ["-append", "quiet root=root rw"])
    #expect(try !arguments(devices: devices).contains("-append"))
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
