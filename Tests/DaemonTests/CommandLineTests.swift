import ArgumentParser
import Bridge
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
    #expect(command.memory == "1G" && command.cpus == 1 && command.accel == .auto && command.qemu == "qemu-system-x86_64")
    #expect(command.image == nil && command.kernel == nil && command.console == nil && command.stopTimeout == 60)
    #expect(command.qemuArguments == [])
  }

  @Test("everything can be said")
  func everything() throws {
    let command = try RunCommand.parse([
      "--machine", "web", "--image", "disk.qcow2", "--kernel", "/k", "--initrd", "/i", "--append", "a b", "--memory", "512M", "--cpus", "4",
      "--accel", "tcg", "--console", "tty", "--qemu", "/q", "--stop-timeout", "0", "--runtime-directory", "/d", "--log-level", "debug",
    ])
    #expect(command.image == "disk.qcow2" && command.kernel == "/k" && command.initrd == "/i" && command.append == "a b")
    #expect(command.memory == "512M" && command.cpus == 4 && command.accel == .tcg && command.console == "tty" && command.qemu == "/q")
    #expect(command.stopTimeout == 0 && command.service.runtimeDirectory == "/d" && command.service.logLevel == .debug)
  }

  @Test("registration takes systemd-vmspawn's spellings, for both ways to a machine")
  func registration() throws {
    let spellings: [(String, MachineRegistration.Policy)] = [
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

  @Test("what stands behind -- is QEMU's, word for word")
  func qemuArguments() throws {
    let words = ["-machine", "none", "--", "--machine", "x", "", "-S", "a b", "--help"]
    #expect(try RunCommand.parse(["--machine", "web", "--"] + words).qemuArguments == words)
    #expect(try RunCommand.parse(["--machine", "web", "--"]).qemuArguments == [])
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
