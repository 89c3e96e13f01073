import Glibc
import QMP
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import Machine

@Suite(.onEventLoop) struct StartDevicesTests {
  /// What a configuration has QEMU do.
  @EventLoopActor
  private func prepare(_ configure: (inout VirtualMachineConfiguration, TemporaryFolder) throws -> Void) async throws -> StartDevices {
    let folder = try TemporaryFolder()
    var configuration = VirtualMachineConfiguration(name: try #require(MachineName("test")))
    try configure(&configuration, folder)
    return try await StartDevices.prepare(configuration, logger: ScriptedQEMU.silent)
  }

  /// The complaint about one.
  @EventLoopActor
  private func complaint(_ configure: (inout VirtualMachineConfiguration, TemporaryFolder) throws -> Void) async throws -> String {
    let folder = try TemporaryFolder()
    var configuration = VirtualMachineConfiguration(name: try #require(MachineName("test")))
    try configure(&configuration, folder)
    do {
      _ = try await StartDevices.prepare(configuration, logger: ScriptedQEMU.silent)
      return "none"
    } catch {
      return "\(error)"
    }
  }

  @EventLoopActor
  private func texts(_ attachment: DeviceAttachment) -> [String] {
    attachment.commands.map { "\($0.name) \($0.arguments?.text ?? "")" }
  }

  @Test("nothing to attach: nothing is waited for") @EventLoopActor
  func nothing() async throws {
    let devices = try await prepare { _, _ in }
    #expect(devices.attachments.isEmpty && devices.programs.isEmpty)
    #expect(!devices.commandLine.waitsForDevices && devices.commandLine.inherited.isEmpty && devices.commandLine.arguments.isEmpty)
  }

  @Test("an image is a node for its descriptor, one for its format, and a device on a port of its own") @EventLoopActor
  func image() async throws {
    let devices = try await prepare { $0.image = try $1.file("disk", [1, 2, 3]) }
    #expect(devices.attachments.count == 1 && devices.commandLine.waitsForDevices && devices.hasBootOrder)
    let first = try #require(devices.attachments.first)
    #expect(first.option.hasPrefix("--image=/") && first.option.hasSuffix("/disk"))
    #expect(
      texts(first) == [
        #"add-fd {"fdset-id":1364590591}"#,
        #"blockdev-add {"driver":"file","node-name":"qv-i0","filename":"/dev/fdset/1364590591","read-only":false}"#,
        #"remove-fd {"fdset-id":1364590591}"#,
        #"blockdev-add {"driver":"raw","node-name":"vmspawn-0-disk","file":"qv-i0","read-only":false}"#,
        #"device_add {"driver":"virtio-blk-pci","id":"vmspawn-0-disk","drive":"vmspawn-0-disk","bus":"qv-c0","bootindex":1,"serial":"disk"}"#,
      ])
    #expect(first.commands[0].descriptors.count == 1)
  }

  @Test("drives of all types: SCSI ones share a controller, a CD is read-only, the image's type is the others' too") @EventLoopActor
  func drives() async throws {
    let devices = try await prepare { configuration, folder in
      configuration.image = try folder.file("a", [])
      configuration.imageDiskType = .virtioSCSI
      let long = try folder.file("a name that is far too long for NVMe", [])
      let cd = try folder.file("cd", [], mode: 0o444)
      configuration.extraDrives = [
        try ExtraDrive(parsing: "nvme:\(long)"), try ExtraDrive(parsing: "raw:scsi-cd:\(cd)"),
        try ExtraDrive(parsing: "\(folder.file("b", []))"),
      ]
    }
    let commands = devices.attachments.flatMap(texts)
    let added = commands.filter { $0.hasPrefix("device_add") }.map { String($0.dropFirst("device_add ".count)) }
    #expect(
      added == [
        #"{"driver":"virtio-scsi-pci","id":"vmspawn_scsi","bus":"qv-c0"}"#,
        #"{"driver":"scsi-hd","id":"vmspawn-0-disk","drive":"vmspawn-0-disk","bus":"vmspawn_scsi.0","bootindex":1,"serial":"a"}"#,
        #"{"driver":"nvme","id":"vmspawn-1-disk","drive":"vmspawn-1-disk","bus":"qv-c1","serial":"vmspawn-1-disk"}"#,
        #"{"driver":"scsi-cd","id":"vmspawn-2-disk","drive":"vmspawn-2-disk","bus":"vmspawn_scsi.0","serial":"cd"}"#,
        #"{"driver":"scsi-hd","id":"vmspawn-3-disk","drive":"vmspawn-3-disk","bus":"vmspawn_scsi.0","serial":"b"}"#,
      ])
    #expect(commands.filter { $0.contains(#""read-only":true"#) }.count == 2)
    #expect(devices.commandLine.ports.count == 2)
  }

  @Test("an ephemeral image is opened for reading, under an overlay that has its size") @EventLoopActor
  func ephemeral() async throws {
    let devices = try await prepare {
      $0.image = try $1.file("disk", [UInt8](repeating: 1, count: 700), mode: 0o444)
      $0.isEphemeral = true
    }
    let first = try #require(devices.attachments.first)
    let commands = texts(first).filter { !$0.contains("-fd") }
    #expect(
      commands == [
        #"blockdev-add {"driver":"file","node-name":"qv-i0","filename":"/dev/fdset/1364590591","read-only":true}"#,
        #"blockdev-add {"driver":"raw","node-name":"qv-b0","file":"qv-i0","read-only":true}"#,
        #"blockdev-add {"driver":"file","node-name":"qv-o0","filename":"/dev/fdset/1364590590","read-only":false}"#,
        #"blockdev-add {"driver":"qcow2","node-name":"vmspawn-0-disk","file":"qv-o0","backing":"qv-b0"}"#,
        #"device_add {"driver":"virtio-blk-pci","id":"vmspawn-0-disk","drive":"vmspawn-0-disk","bus":"qv-c0","bootindex":1,"serial":"disk"}"#,
      ])
    let overlay = try #require(first.commands.flatMap(\.descriptors).last)
    #expect(Qcow2.header(of: overlay)?.size == 1024)
  }

  @Test("an image that names other files is opened by QEMU, from the folder that they are relative to") @EventLoopActor
  func backedImage() async throws {
    var header = Qcow2.empty(size: 1 << 20).beginning
    header[15] = 1
    let devices = try await prepare {
      $0.image = try $1.file("disk", header)
      $0.imageFormat = .qcow2
    }
    let first = try #require(devices.attachments.first)
    let commands = texts(first)
    #expect(
      commands.count == 3 && commands[0].contains(#""filename":"/"#) && commands[0].contains("/disk\"") && commands[1].contains("qcow2"))
  }

  @Test("no image that names other files is taken for qcow2 by its looks: a guest can write such a header to a raw disk") @EventLoopActor
  func guessedBackedImage() async throws {
    let empty = Qcow2.empty(size: 1 << 20).beginning
    var backed = empty
    backed[15] = 1
    var withDataFile = empty
    withDataFile[79] = 4
    for header in [backed, withDataFile] {
      for isEphemeral in [false, true] {
        let complaint = try await complaint {
          $0.image = try $1.file("disk", header)
          $0.isEphemeral = isEphemeral
        }
        #expect(complaint.contains("/disk: it names other files") && complaint.contains("--image-format=qcow2"), "\(complaint)")
      }
    }
    // One without is what it looks like, and as raw everything is.
    #expect(try await complaint { $0.image = try $1.file("disk", empty) } == "none")
    let raw = try await prepare {
      $0.image = try $1.file("disk", backed)
      $0.imageFormat = .raw
    }
    #expect(try texts(#require(raw.attachments.first)).contains { $0.contains(#""driver":"raw""#) })
  }

  @Test("the network's forwards; which of them QEMU has refused is in its words") @EventLoopActor
  func network() async throws {
    let devices = try await prepare { configuration, _ in
      configuration.hasNetwork = true
      configuration.forwards = [try PortForward(parsing: "2222:22"), try PortForward(parsing: "udp:0.0.0.0:53:54")]
    }
    let network = try #require(devices.attachments.first)
    #expect(
      texts(network) == [
        #"netdev_add {"type":"user","id":"net0","hostfwd":[{"str":"tcp:127.0.0.1:2222-:22"},{"str":"udp:0.0.0.0:53-:54"}]}"#,
        #"device_add {"driver":"virtio-net-pci","id":"nic0","netdev":"net0","bus":"qv-c0"}"#,
      ])
    #expect(network.refined("Could not set up host forwarding rule 'udp:0.0.0.0:53-:54'") == "--forward=udp:0.0.0.0:53:54")
    #expect(network.refined("something else") == nil)
  }

  @Test("strings and credentials are files that only QEMU gets") @EventLoopActor
  func strings() async throws {
    let devices = try await prepare { configuration, folder in
      configuration.smbiosStrings = ["io.systemd.test:x"]
      let file = try folder.file("secret", [0, 255])
      configuration.credentials = [
        try Credential(literal: "a:b", option: "--set-credential"),
        try Credential(file: "c:\(file)", option: "--load-credential") { _ in nil },
      ]
    }
    let contents = devices.commandLine.inherited.map { file in
      var buffer = [UInt8](repeating: 0, count: 256)
      let count = pread(file.descriptor.raw, &buffer, buffer.count, 0)
      return String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    }
    #expect(
      contents == ["io.systemd.test:x", "io.systemd.credential.binary:a=Yg==", "io.systemd.credential.binary:c=AP8="])
    #expect(
      devices.commandLine.arguments.filter { $0 != "-smbios" } == [
        "type=11,path=/dev/fd/4", "type=11,path=/dev/fd/5", "type=11,path=/dev/fd/6",
      ])
    #expect(!devices.commandLine.waitsForDevices)
  }

  @Test("what cannot be had is told with the option that asks for it") @EventLoopActor
  func complaints() async throws {
    #expect(try await complaint { $0.image = $1.path.appending("x") }.hasSuffix("/x: cannot open it: No such file or directory"))
    #expect(try await complaint { $0.image = $1.path }.contains(": cannot open it: Is a directory"))
    #expect(
      try await complaint { configuration, folder in
        configuration.image = folder.path
        configuration.isEphemeral = true
      }.contains(": it is a folder"))
    #expect(
      try await complaint { configuration, _ in
        configuration.extraDrives = [try ExtraDrive(parsing: "nvme:/dev/null")]
      } == "--extra-drive=nvme:/dev/null: it is neither a regular file nor a block device")
    #expect(
      try await complaint { configuration, folder in
        configuration.extraDrives = [try ExtraDrive(parsing: "qcow2:\(folder.file("short", Qcow2.magic))")]
      }.hasSuffix("/short: it is no qcow2 image"))
    #expect(try await complaint { $0.directory = $1.path.appending("x") }.contains("--directory=/"))
    #expect(
      try await complaint { configuration, folder in
        configuration.binds = [try BindMount(parsing: "\(folder.file("f", [])):/x", isReadOnly: true)]
      }.hasSuffix("/f:/x: it is no folder"))
    #expect(
      try await complaint { configuration, folder in configuration.firmware = .descriptor(folder.path.appending("x")) }.contains(
        "/x: cannot open /"))
    #expect(
      try await complaint { configuration, folder in
        configuration.firmware = .descriptor(try folder.file("x", "{}".utf8))
      }.contains("it is not a UEFI"))
    #expect(
      try await complaint { configuration, folder in
        configuration.firmware = .descriptor(try folder.file("x", FirmwareTests.descriptor().utf8))
      }.contains("cannot open /f/CODE: No such file or directory"))
    #expect(
      try await complaint { configuration, folder in
        configuration.credentials = [try Credential(file: "a:\(folder.path.appending("x"))", option: "--load-credential") { _ in nil }]
      }.hasPrefix("--load-credential=a:/"))
    #expect(
      try await complaint { configuration, folder in
        configuration.extraDrives = try (0..<33).map { try ExtraDrive(parsing: "\(folder.file("d\($0)", []))") }
      }.contains("there is room for 32 devices at the start"))
  }

  @Test("what QEMU refuses is told with the option, the first one's; all are sent before any is answered") @EventLoopActor
  func refusal() async throws {
    let (ours, theirs) = try socketPair()
    let client = try QMPClient(OwnedDescriptor(owning: ours))
    let qemu = try ScriptedQEMU(theirs) { name in
      switch name {
      case "bad": ScriptedQEMU.refusal("no such thing")
      case "worse": ScriptedQEMU.refusal("rule 2")
      case "silent": nil
      default: ScriptedQEMU.done
      }
    }
    func attachment(_ option: String, _ commands: String...) -> DeviceAttachment {
      DeviceAttachment(option: option, commands: commands.map { QMPCommand($0) }) { $0.contains("2") ? "--second" : nil }
    }
    func outcome(_ attachments: DeviceAttachment...) async -> String {
      do {
        try attachments.check(await client.pipeline(attachments.commands))
        return "done"
      } catch {
        return "\(error)"
      }
    }
    #expect(await outcome(attachment("--a", "good", "good"), attachment("--b", "good")) == "done")
    #expect(await outcome(attachment("--a", "good"), attachment("--b", "good", "bad"), attachment("--c", "worse")) == "--b: no such thing")
    #expect(await outcome(attachment("--c", "worse"), attachment("--b", "bad")) == "--second: rule 2")
    let last = Promise<String>()
    startTask { last.fulfil(await outcome(attachment("--a", "silent"), attachment("--b", "silent", "silent"))) }
    try await qemu.wait(forCommands: 3 + 4 + 2 + 3)
    qemu.peer.close()
    #expect(try await last.soon() == "\(MachineError.qmp(.disconnected))")
  }

  @Test("only a program that has failed has something to say of a failure") @EventLoopActor
  func complaintOfProgram() async throws {
    func program(_ script: String) throws -> DeviceProgram {
      DeviceProgram(
        name: "program", option: "--x", process: try ChildProcess("/bin/sh", ["-c", script], descriptors: [], onLine: { _ in }))
    }
    let failed = try program("echo no such thing >&2; exit 3")
    _ = try await failed.process.ended.soon()
    #expect(await failed.complaint() == "program exited with status 3: no such thing")
    let done = try program("echo bye >&2")
    _ = try await done.process.ended.soon()
    #expect(await done.complaint() == nil)
    let running = try program("exec sleep 1000")
    #expect(await running.complaint() == nil)
    running.process.signal(SIGKILL)
    #expect(try await running.process.ended.soon() == .signaled(SIGKILL))
  }

  @Test("a program is looked for on PATH, or in its places")
  @EventLoopActor
  func programs() throws {
    let folder = try TemporaryFolder()
    let program = try folder.script("program", "exit 0")
    try folder.file("plain", [])
    #expect(DeviceProgram.find(["program"], path: "/nonexistent:\(folder.path)") == program.string)
    #expect(DeviceProgram.find(["none", program.string], path: folder.path.string) == program.string)
    #expect(DeviceProgram.find(["plain", "none"], path: folder.path.string) == nil)
  }
}
