import ArgumentParser
import Bridge
import Glibc
import Logging
import Machine
import SystemPackage
import Testing

@testable import qmp_varlinkd

@Suite struct CommandLineTests {
  @Test("a machine needs no more than a name")
  func defaults() throws {
    let command = try RunCommand.parse(["--machine", "web"])
    #expect(command.service.machine.description == "web")
    #expect(command.service.runtimeDirectory == nil)
    #expect(command.service.logLevel == .info)
    #expect(command.memory == nil && command.cpus == 1 && command.accelerator == .auto && command.qemu == "qemu-system-x86_64")
    #expect(command.drives.image == nil && command.kernel == nil && command.console == nil && command.stopTimeout == 60)
    #expect(command.qemuArguments == [])
  }

  @Test("everything can be said")
  func everything() throws {
    let command = try RunCommand.parse([
      "--machine", "web", "--image", "disk.qcow2", "--kernel", "/k", "--initrd", "/i", "--append", "a b", "--memory", "512M", "--cpus", "4",
      "--accel", "tcg", "--console", "tty", "--qemu", "/q", "--stop-timeout", "0", "--runtime-directory", "/d", "--log-level", "debug",
    ])
    #expect(command.drives.image == "disk.qcow2" && command.kernel == "/k" && command.initrd == "/i" && command.append == "a b")
    #expect(
      command.memory == "512M" && command.cpus == 4 && command.accelerator == .tcg && command.console == "tty" && command.qemu == "/q")
    #expect(command.stopTimeout == 0 && command.service.runtimeDirectory == "/d" && command.service.logLevel == .debug)
  }

  @Test("registration takes systemd-vmspawn's spellings, for both ways to a machine")
  func registration() throws {
    let spellings: [(String, Tristate)] = [
      ("auto", .auto), ("yes", .yes), ("true", .yes), ("1", .yes), ("on", .yes), ("no", .no), ("False", .no), ("0", .no), ("off", .no),
    ]
    for (word, policy) in spellings {
      #expect(try RunCommand.parse(["--machine", "web", "--register=\(word)"]).service.register == policy)
    }
    let plain = try AttachCommand.parse(["--machine", "web", "--qmp", "unix:/q"]).service
    #expect(plain.register == .auto && !plain.keepUnit && plain.scope == .own)
    let told = try AttachCommand.parse(["--machine", "web", "--qmp", "unix:/q", "--register=no", "--keep-unit", "--user"]).service
    #expect(told.register == .no && told.keepUnit && told.scope == .user)
    #expect(try RunCommand.parse(["--machine", "web", "--system"]).service.scope == .system)
  }

  @Test("polkit is asked by root's daemons of the system where there is a message bus, and by others that are told to")
  func polkit() throws {
    func asks(_ options: [String]) throws -> Bool { try RunCommand.parse(["--machine", "web"] + options).service.asksPolkit }
    // It is not connected to before there is something to ask.
    setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere", 1)
    defer { unsetenv("DBUS_SYSTEM_BUS_ADDRESS") }
    #expect(try asks([]) == (geteuid() == 0) && asks(["--system"]) == (geteuid() == 0))
    #expect(try !asks(["--polkit=no"]) && !asks(["--user"]))
    #expect(try asks(["--polkit=yes"]) && asks(["--user", "--polkit=yes"]))
  }

  @Test("devices can be said, in systemd-vmspawn's words")
  func devices() throws {
    let command = try RunCommand.parse([
      "--machine", "web", "-i", "/i", "--image-format=qcow2", "--image-disk-type=nvme", "--extra-drive=/a", "--extra-drive",
      "qcow2:scsi-cd:/b",
      "--bind=/s:/t", "--bind-ro=/r", "--linux", "/k", "--firmware=uefi", "--secure-boot=no", "--network-user-mode", "--forward=1:2",
      "--forward=udp:3:4", "--vsock-cid=7", "--tpm-state=/t", "--set-credential=a:b", "--credential=c:d", "--load-credential=e:/f",
      "-s", "one", "--smbios11=two", "--uuid=0123456789abcdef0123456789abcdef", "--ram=2G", "--kvm=no",
    ])
    var configuration = VirtualMachineConfiguration(name: command.service.machine)
    command.drives.apply(to: &configuration)
    try command.devices.apply(to: &configuration)
    #expect(configuration.image == "/i" && configuration.imageFormat == .qcow2 && configuration.imageDiskType == .nvme)
    #expect(configuration.extraDrives.map(\.path) == ["/a", "/b"] && configuration.extraDrives.map(\.type) == [nil, .scsiCD])
    #expect(configuration.binds.map(\.target) == ["/t", "/r"] && configuration.binds.map(\.isReadOnly) == [false, true])
    #expect(command.kernel == "/k" && configuration.firmware == .uefi && configuration.secureBoot == false)
    #expect(configuration.hasNetwork && configuration.forwards.map(\.guestPort) == [2, 4])
    #expect(configuration.vsock == .yes && configuration.vsockAddress == 7 && configuration.tpm == .yes && configuration.tpmState == "/t")
    #expect(configuration.credentials.map(\.name) == ["a", "c", "e"] && configuration.smbiosStrings == ["one", "two"])
    #expect(configuration.uuid?.description == "01234567-89ab-cdef-0123-456789abcdef")
    #expect(command.ram?.qemuValue == "2147483648B" && command.accelerator == .tcg)
  }

  @Test("what is not said is not there")
  func noDevices() throws {
    let command = try RunCommand.parse(["--machine", "web"])
    var configuration = VirtualMachineConfiguration(name: command.service.machine)
    command.drives.apply(to: &configuration)
    try command.devices.apply(to: &configuration)
    #expect(!configuration.hasNetwork && configuration.vsock == .no && configuration.tpm == .no && configuration.firmware == nil)
    #expect(
      configuration.credentials.isEmpty && configuration.binds.isEmpty && configuration.extraDrives.isEmpty && !configuration.isEphemeral)
  }

  @Test("what stands behind -- is QEMU's, word for word")
  func qemuArguments() throws {
    let words = ["-machine", "none", "--", "--machine", "x", "", "-S", "a b", "--help"]
    #expect(try RunCommand.parse(["--machine", "web", "--"] + words).qemuArguments == words)
    #expect(try RunCommand.parse(["--machine", "web", "--"]).qemuArguments == [])
    #expect(try RunCommand.parse(["--machine", "web", "--", "-m", "512M"]).qemuArguments == ["-m", "512M"])
  }

  @Test(
    "what makes no sense is refused with the reason",
    arguments: [
      ([], "--machine"), (["--machine", "a/b"], "a/b"), (["--machine", ""], "--machine"), (["--machine", "-x"], "--machine"),
      (["--machine", "w", "--cpus", "0"], "--cpus must be at least 1"), (["--machine", "w", "--cpus=-1"], "--cpus must be at least 1"),
      (["--machine", "w", "--cpus", "many"], "many"), (["--machine", "w", "--initrd", "/i"], "--initrd needs --kernel"),
      (["--machine", "w", "--append", "x"], "--append needs --kernel"),
      (["--machine", "w", "--stop-timeout=-1"], "must be 0 to 86400 seconds"),
      (["--machine", "w", "--accel", "xen"], "xen"), (["--machine", "w", "--image", ""], "--image"),
      (["--machine", "w", "--register=maybe"], "maybe"), (["--machine", "w", "--register"], "--register"),
      (["--machine", "w", "--log-level", "loud"], "loud"), (["--machine", "w", "stray"], "stray"),
      (["--machine", "w", "--no-such"], "--no-such"),
      (["--machine", "w", "--ephemeral"], "--ephemeral needs --image"),
      (["--machine", "w", "--image-format", "raw"], "--image-format needs --image"),
      (["--machine", "w", "--image", "/i", "--image-format", "vmdk"], "vmdk"),
      (["--machine", "w", "--image", "/i", "--image-disk-type", "ide"], "ide"),
      (["--machine", "w", "--image", "/i", "--ephemeral", "--extra-drive=/x"], "--ephemeral cannot be used with --extra-drive"),
      (["--machine", "w", "--image", "/i", "--directory", "/d"], "--image cannot be used with --directory"),
      (["--machine", "w", "--directory", "/d"], "--directory needs --kernel"),
      (["--machine", "w", "--extra-drive", "vmdk:/x"], "'vmdk' is neither a format"),
      (["--machine", "w", "--extra-drive", ""], "'' has no path"),
      (["--machine", "w", "--bind", "/a:b"], "must be an absolute path"),
      (["--machine", "w", "--bind-ro", "a"], "must be an absolute path"),
      (["--machine", "w", "--firmware", "coreboot"], "'coreboot' is none of bios, uefi and none"),
      (["--machine", "w", "--firmware", "none"], "--firmware=none needs --kernel"),
      (["--machine", "w", "--secure-boot", "yes"], "--secure-boot needs --firmware=uefi"),
      (["--machine", "w", "--secure-boot", "maybe", "--firmware", "uefi"], "'maybe' is none of yes, no and auto"),
      (["--machine", "w", "--network", "tap"], "tap"), (["--machine", "w", "--forward", "1:2"], "--forward needs --network=user"),
      (["--machine", "w", "--network", "user", "--forward", "1"], "'1' is not [tcp:"),
      (["--machine", "w", "--network", "none", "--network-user-mode"], "--network=none cannot be used with --network-user-mode"),
      (["--machine", "w", "--vsock", "perhaps"], "perhaps"),
      (["--machine", "w", "--vsock-cid", "2"], "--vsock-cid must be 3 to 4294967294"),
      (["--machine", "w", "--vsock-cid", "4294967295"], "must be 3 to"),
      (["--machine", "w", "--vsock", "no", "--vsock-cid", "5"], "--vsock=no"),
      (["--machine", "w", "--tpm", "2"], "'2' is none of yes"), (["--machine", "w", "--tpm", "no", "--tpm-state", "/t"], "--tpm=no"),
      (["--machine", "w", "--tpm-state", "/a,b"], "must not have a comma"),
      (["--machine", "w", "--set-credential", "x"], "--set-credential: it is not NAME:VALUE"),
      (["--machine", "w", "--credential", "a/b:x"], "is no name for"),
      (["--machine", "w", "--load-credential", "x:"], "has no path"), (["--machine", "w", "--smbios11", ""], "must not be empty"),
      (["--machine", "w", "--uuid", "1"], "'1' is not a UUID"), (["--machine", "w", "--ram", "1"], "'1' is not between"),
      (["--machine", "w", "--ram", "1G", "--memory", "1G"], "--memory cannot be used with --ram"),
      (
        ["--machine", "w", "--bind", "/a", "--", "-m", "512M"],
        "-m behind -- cannot be used with --bind, --bind-ro and --directory: use --memory"
      ),
      (["--machine", "w", "--bind-ro", "/a", "--", "--m", "512M"], "use --memory"),
      (["--machine", "w", "--kernel", "/k", "--directory", "/a", "--", "-m", "512M"], "use --memory"),
      (["--machine", "w", "--kvm", "no", "--accel", "tcg"], "--accel cannot be used with --kvm"),
    ] as [([String], String)])
  func refused(arguments: [String], reason: String) {
    do {
      _ = try RunCommand.parse(arguments)
      Issue.record("accepted")
    } catch {
      #expect(RunCommand.fullMessage(for: error).contains(reason), "\(RunCommand.fullMessage(for: error))")
      #expect(RunCommand.exitCode(for: error) == .validationFailure)
    }
  }

  @Test(
    "the value of a credential is in no complaint",
    arguments: [#"a:hunter2\q"#, #"a:hunter2\"#, #"a:\x4hunter2"#, "hunter2", "a/b:hunter2", #"a:hunter2\400"#])
  func secret(value: String) {
    for option in ["--set-credential", "--credential"] {
      do {
        _ = try QMPVarlinkd.parseAsRoot(["run", "--machine", "w", option, value])
        Issue.record("accepted")
      } catch {
        let message = QMPVarlinkd.fullMessage(for: error)
        #expect(message.contains("--set-credential: ") && !message.contains("hunter2"), "\(message)")
        #expect(QMPVarlinkd.exitCode(for: error) == .validationFailure)
      }
    }
  }

  @Test(
    "a QMP address is a path, with or without its kind",
    arguments: [
      ("unix:/run/qmp", "/run/qmp"), ("/run/qmp", "/run/qmp"), ("unix:./qmp", "./qmp"), ("a/b", "a/b"), ("unix:qmp", nil), ("qmp", nil),
      ("", nil),
      ("unix:", nil), ("tcp:host:4444", nil),
    ] as [(String, String?)])
  func address(text: String, path: String?) {
    #expect(QMPAddress(argument: text)?.path.string == path)
  }

  @Test("attaching needs a name and an address")
  func attach() throws {
    let command = try AttachCommand.parse(["--machine", "web", "--qmp", "unix:/run/qmp"])
    #expect(command.service.machine.description == "web" && command.qmp.path == "/run/qmp")
    #expect(throws: (any Error).self) { try AttachCommand.parse(["--machine", "web"]) }
    #expect(throws: (any Error).self) { try AttachCommand.parse(["--qmp", "/run/qmp"]) }
    #expect(throws: (any Error).self) { try AttachCommand.parse(["--machine", "web", "--qmp", "tcp:x:1"]) }
  }

  @Test("the commands are found by their names")
  func commands() throws {
    #expect(try QMPVarlinkd.parseAsRoot(["run", "--machine", "w"]) is RunCommand)
    #expect(try QMPVarlinkd.parseAsRoot(["attach", "--machine", "w", "--qmp", "/q"]) is AttachCommand)
    #expect(throws: (any Error).self) { try QMPVarlinkd.parseAsRoot(["walk"]) }
  }
}
