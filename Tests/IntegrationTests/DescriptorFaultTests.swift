import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// A process that has no descriptors left, at each place where it needs one.
@Suite("out of descriptors", .onEventLoop, .serialized) struct DescriptorFaultTests {
  /// A machine with places for drives, whose guest never runs.
  private static let machine = ["run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--", "-S"]

  @Test("connections are closed at once, the others go on; and when there is room again, so are new ones served") @EventLoopActor
  func accept() async throws {
    let (_, status) = try await withDaemon(bareMachine) { daemon in
      let early = try daemon.connect()
      _ = try await early.call("io.systemd.MachineInstance.Describe")
      var served: [VarlinkPeer] = []
      for _ in 0..<3 {
        try await withRoom(0, in: daemon.process) {
          for _ in 0..<3 {
            let late = try daemon.connect()
            try await known { try await late.peer.waitForEnd() }
            #expect(late.peer.received.isEmpty)
            #expect(try await early.call("io.systemd.MachineInstance.Describe").contains("running"))
          }
        }
        // It stays: its end would make room, at some moment of the next round.
        let next = try daemon.connect()
        served.append(next)
        #expect(try await next.call("io.systemd.MachineInstance.Describe").contains("running"))
      }
      #expect(served.count == 3)
      #expect(daemon.log.contains("a connection was closed: there is no descriptor for it (Too many open files)"))
    }
    #expect(status == 0)
  }

  @Test("a monitor's clients are closed at once; its next one is served") @EventLoopActor
  func monitorClient() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let monitors = MonitorsClient(daemon: daemon)
      #expect(try await monitors.listen("m") == "{}")
      try await withRoom(0, in: daemon.process) {
        let client = try Peer(.connected(to: monitors.path("m")))
        try await known { try await client.waitForEnd() }
        #expect(client.received.isEmpty)
      }
      _ = try await monitors.connect("m")
      #expect(try await monitors.remove("m") == "{}")
    }
  }

  /// What takes descriptors, beside the connection that it comes by.
  enum Operation: String, CaseIterable, CustomTestStringConvertible {
    case session = "a session", shared = "a session on a shared monitor", monitor = "a monitor"
    case subscription = "a subscription", drive = "a drive", command = "a command with a descriptor"
    var testDescription: String { rawValue }
  }

  @Test(
    "with room for 0 to 9 more: each operation succeeds, or says what there is too little of, and leaves nothing",
    arguments: Operation.allCases)
  @EventLoopActor
  func operations(operation: Operation) async throws {
    let (_, status) = try await withDaemon(Self.machine) { daemon in
      let image = try DiskImage(daemon.directory.appending("image"), size: 1 << 20)
      let qemu = try daemon.qemu()
      // What is made once, on first use, is there before the count.
      _ = try await Self.attempt(operation, daemon, try daemon.connect(), image)
      try await Self.takeBack(operation, daemon)
      try await StormTests.quiet(daemon)
      var before = RunningDaemon.descriptorCount(of: qemu)
      var outcomes: [Bool] = []
      for room in 0..<10 {
        let connection = try daemon.connect()
        _ = try await connection.call("io.systemd.MachineInstance.Describe")
        let reply = try await withRoom(room, in: daemon.process) {
          try await known { try await Self.attempt(operation, daemon, connection, image) }
        }
        let failed = reply.isEmpty || reply.contains(#""error""#)
        // A descriptor that came with the call and could not be taken is none.
        if !reply.isEmpty, failed { #expect(reply.contains(/"errnoName":"(EMFILE|ENXIO)"/), "\(room): \(reply)") }
        outcomes.append(!failed)
        connection.peer.close()
        if !failed { try await Self.takeBack(operation, daemon) }
        guard operation == .drive else { continue }
        // The guest does not run, and so does not let go of any.
        try await StormTests.quiet(daemon)
        if failed { #expect(RunningDaemon.descriptorCount(of: qemu) == before) }
        before = RunningDaemon.descriptorCount(of: qemu)
      }
      #expect(outcomes.last == true, "\(outcomes)")
      print("\(operation.rawValue): \(outcomes)")
      try await StormTests.quiet(daemon)
      #expect(RunningDaemon.descriptorCount(of: qemu) == before)
    }
    #expect(status == 0)
  }

  @EventLoopActor private static var drives = 0

  /// Does it on a connection.
  ///
  /// - Returns: the reply; empty if the connection ended instead.
  @EventLoopActor
  private static func attempt(
    _ operation: Operation, _ daemon: RunningDaemon, _ connection: VarlinkPeer, _ image: borrowing DiskImage
  ) async throws -> String {
    let method =
      switch operation {
      case .session, .shared: "io.systemd.QemuMachineInstance.AcquireQMP"
      case .monitor: "io.qmpvarlink.Monitors.Add"
      case .subscription: "io.systemd.MachineInstance.SubscribeEvents"
      case .drive: "io.systemd.MachineInstance.AddStorage"
      case .command: "io.qmpvarlink.QMP.Getfd"
      }
    let parameters =
      switch operation {
      case .session: "{}"
      case .shared: #"{"mode":"shared"}"#
      case .monitor: #"{"id":"m","listen":"\#(daemon.directory)/m"}"#
      case .subscription: "{}"
      case .drive: #"{"fileDescriptorIndex":0,"name":"d\#(drives)","config":"virtio-scsi"}"#
      case .command: #"{"fileDescriptorIndex":0,"fdname":"f"}"#
      }
    let flags =
      switch operation {
      case .session, .shared: #","upgrade":true"#
      case .subscription: #","more":true"#
      default: ""
      }
    drives += 1
    let descriptors = [.drive, .command].contains(operation) ? [image.descriptor.raw] : []
    let before = connection.peer.received.count { $0 == 0 }
    try await connection.send(method, parameters, flags: flags, descriptors: descriptors)
    try await connection.peer.wait("a reply or the end") { $0.hasEnded || $0.received.count { $0 == 0 } > before }
    do { return try await connection.receive() } catch is RunningDaemon.Failure { return "" }
  }

  @EventLoopActor
  private static func takeBack(_ operation: Operation, _ daemon: RunningDaemon) async throws {
    switch operation {
    case .monitor: #expect(try await daemon.call("io.qmpvarlink.Monitors.Remove", #"{"id":"m"}"#) == "{}")
    case .command: #expect(try await daemon.call("io.qmpvarlink.QMP.Closefd", #"{"fdname":"f"}"#) == "{}")
    default: break
    }
  }

  @Test("a session whose descriptor cannot be taken has QEMU's word for it, and goes on") @EventLoopActor
  func passedOnSession() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"}"#)
      try await session.wait(for: #"{"return": {}}"#)
      try await withRoom(0, in: daemon.process) {
        try await known {
          try await session.write(#"{"execute":"getfd","arguments":{"fdname":"f"},"id":1}"#, descriptors: [STDIN_FILENO])
          try await session.wait(for: #""id": 1"#)
        }
      }
      #expect(session.text.contains("No file descriptor supplied via SCM_RIGHTS"), "\(session.text)")
      try await session.write(#"{"execute":"getfd","arguments":{"fdname":"f"},"id":2}"#, descriptors: [STDIN_FILENO])
      try await session.wait(for: #"{"return": {}, "id": 2}"#)
    }
  }

  @Test("a QEMU that is out of them: sessions are refused in its words, and had when there is room again") @EventLoopActor
  func qemu() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      _ = try await daemon.qmp(#"{"execute":"query-name"}"#)
      try await withRoom(0, in: try daemon.qemu()) {
        let connection = try daemon.connect()
        let reply = try await known { try await connection.call("io.systemd.QemuMachineInstance.AcquireQMP", flags: #","upgrade":true"#) }
        #expect(reply.contains(#""class":"GenericError""#) && reply.contains("SCM_RIGHTS"), "\(reply)")
        #expect(try await daemon.call("io.systemd.MachineInstance.Describe").contains("running"))
      }
      #expect(try await daemon.qmp(#"{"execute":"query-name"}"#).contains("test"))
    }
  }

  @Test("a daemon that starts with 4 to 40 of them says which call failed, and leaves no QEMU", arguments: 4...40) @EventLoopActor
  func start(limit: Int) async throws {
    try await withTemporaryDirectory { folder in
      let name = "few-\(getpid())-\(limit)"
      let result = try await known {
        try await command(
          "timeout",
          [
            "60", "prlimit", "--nofile=\(limit):\(limit)", productsDirectory.appending("qmp-varlinkd").string, "run", "--machine", name,
            "--accel", "tcg", "--memory", "64M", "--register=no", "--set-credential=a:b", "--runtime-directory", folder.string, "--",
            "-version",
          ])
      }
      // 127: not even the program's libraries could be opened.
      #expect([1, 70, 127].contains(result.status), "\(limit): \(result.status) \(result.error)")
      #expect(!result.error.isEmpty)
      #expect(try await command("pgrep", ["--full", "guest=\(name)"]).output == "")
    }
  }
}

/// Leaves a process so many descriptors beside those that it has, while `body` runs.
@EventLoopActor
func withRoom<Result>(_ room: Int, in process: Int32, _ body: @EventLoopActor () async throws -> Result) async throws -> Result {
  func prlimit(_ arguments: [String]) async throws -> String {
    let result = try await command("prlimit", ["--pid", "\(process)"] + arguments)
    guard result.status == 0 else { throw RunningDaemon.Failure(result.error) }
    return result.output
  }
  let before = try await prlimit(["--nofile", "--raw", "--noheadings", "--output=SOFT"]).split(separator: "\n")[0]
  // The limit is one of numbers.
  var limit = 0
  var free = 0
  while true {
    var status = stat()
    if lstat("/proc/\(process)/fd/\(limit)", &status) != 0 {
      if free == room { break }
      free += 1
    }
    limit += 1
  }
  _ = try await prlimit(["--nofile=\(limit):"])
  do {
    let result = try await body()
    _ = try await prlimit(["--nofile=\(before):"])
    return result
  } catch {
    _ = try? await prlimit(["--nofile=\(before):"])
    throw error
  }
}
