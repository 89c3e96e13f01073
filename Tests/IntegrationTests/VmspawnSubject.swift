import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport

/// One of the two that are compared: a running machine of systemd-vmspawn's, or of ours.
@EventLoopActor
final class Subject {
  let name: String
  let socket: FilePath
  /// What the drive is called that the machine was started with.
  let bootDrive: String
  /// Files for drives; each subject has its own.
  let folder: FilePath
  let qemu: Int32
  /// What was observed, in order.
  private(set) var observed: [(step: String, result: String)] = []

  private init(_ name: String, socket: FilePath, bootDrive: String, folder: FilePath, process: Int32) async throws {
    self.name = name
    self.socket = socket
    self.bootDrive = bootDrive
    self.folder = folder
    let children = contents(of: FilePath("/proc/\(process)/task/\(process)/children")).split(separator: " ").compactMap { Int32($0) }
    guard let qemu = children.first(where: { contents(of: FilePath("/proc/\($0)/comm")).hasPrefix("qemu") }) else {
      throw RunningDaemon.Failure("\(name) has no QEMU")
    }
    self.qemu = qemu
  }

  /// Runs `body` with a machine of each kind, at the same time, and gives what was observed of the two.
  static func both(
    _ body: @escaping @EventLoopActor @Sendable (Subject) async throws -> Void
  ) async throws -> (theirs: [(step: String, result: String)], ours: [(step: String, result: String)]) {
    let theirs = Task(executorPreference: EventLoop.shared) { try await vmspawn(body) }
    let ours = Task(executorPreference: EventLoop.shared) { try await daemon(body) }
    return (try await theirs.value, try await ours.value)
  }

  private static func vmspawn(
    _ body: @escaping @EventLoopActor @Sendable (Subject) async throws -> Void
  ) async throws -> [(step: String, result: String)] {
    try await withTemporaryDirectory { folder in
      let image = try await prepare(folder)
      guard let script = Bundle.module.path(forResource: "run_vmspawn", ofType: nil, inDirectory: "Clients") else {
        throw RunningDaemon.Failure("no script that runs systemd-vmspawn")
      }
      let files = ["vmlinuz", "initrd"].map { folder.appending($0).string }
      let arguments = [folder.string, "reference"] + files + [image.string, "-serial", "file:\(folder.appending("console"))"]
      return try await withVmspawn(FilePath(script), arguments, in: folder) { process in
        let socket = folder.appending("systemd/vmspawn/reference/control")
        let subject = try await Subject("vmspawn", socket: socket, bootDrive: "vmspawn-0-disk", folder: folder, process: process)
        try await body(subject)
        return subject.observed
      }.result
    }
  }

  private static func daemon(
    _ body: @escaping @EventLoopActor @Sendable (Subject) async throws -> Void
  ) async throws -> [(step: String, result: String)] {
    try await withTemporaryDirectory { folder in
      let image = try await prepare(folder)
      let machine = [
        "run", "--machine", "ours", "--accel", "tcg", "--kernel", folder.appending("vmlinuz").string, "--initrd",
        folder.appending("initrd").string, "--append", "console=ttyS0 quiet no_timer_check", "--memory", "256M", "--image", image.string,
        "--console", folder.appending("console").string, "--stop-timeout", "0",
      ]
      return try await withDaemon(machine) { daemon in
        let subject = try await Subject("ours", socket: daemon.socket, bootDrive: "vmspawn-0-disk", folder: folder, process: daemon.process)
        try await body(subject)
        return subject.observed
      }.result
    }
  }

  private static func prepare(_ folder: FilePath) async throws -> FilePath {
    try await Guest.make(in: folder)
    let image = folder.appending("boot")
    let made = try await python("partitioned_image", [image.string])
    guard made.status == 0 else { throw RunningDaemon.Failure(made.error) }
    return image
  }

  /// Waits until the guest is up.
  func boot() async throws {
    let console = folder.appending("console")
    let up = try await command("timeout", ["240", "sh", "-c", "tail -n +1 -F \(console) 2>/dev/null | grep -qm1 'guest: up'"])
    guard up.status == 0 else { throw RunningDaemon.Failure("\(name): the guest is not up: \(contents(of: console))") }
  }

  // MARK: what is done and seen

  func note(_ step: String, _ result: String) { observed.append((step, result)) }

  func connect() throws -> VarlinkPeer { VarlinkPeer(try Peer(.connected(to: socket))) }

  /// The next message, or that there is none.
  func receive(_ connection: VarlinkPeer) async -> String { (try? await connection.receive()) ?? "the end" }

  /// Makes a call on a connection of its own, and notes the reply.
  func call(_ step: String, _ method: String, _ parameters: String = "{}", flags: String = "", _ descriptor: CInt? = nil) async throws {
    let connection = try connect()
    let qualified = method.contains(".") ? method : "io.systemd.MachineInstance.\(method)"
    try await connection.send(qualified, parameters, flags: flags, descriptors: descriptor.map { [$0] } ?? [])
    note(step, await receive(connection))
    if let descriptor { close(descriptor) }
  }

  /// A new descriptor of a file for drives.
  func file(_ name: String, size: Int = 1 << 20, _ flags: CInt = O_RDWR) -> CInt {
    let path = folder.appending(name).string
    if access(path, F_OK) != 0 {
      let made = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
      ftruncate(made, size)
      close(made)
    }
    return open(path, flags | O_CLOEXEC)
  }

  func subscribe(_ parameters: String = "{}") async throws -> VarlinkPeer {
    let subscriber = try connect()
    try await subscriber.send("io.systemd.MachineInstance.SubscribeEvents", parameters, flags: #","more":true"#)
    note("subscribed \(parameters)", await receive(subscriber))
    return subscriber
  }

  /// Notes the next events of a subscriber.
  func events(_ step: String, _ subscriber: VarlinkPeer, _ count: Int) async {
    for number in 1...count { note("\(step), event \(number)", await receive(subscriber)) }
  }
}
