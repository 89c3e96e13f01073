import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// Clients that take what they can: the daemon's memory stays bounded, and the others go on.
@Suite("clients that flood, dawdle and send nonsense", .onEventLoop)
struct HostileClientTests {
  /// What a test measured of the other sessions' round trips meanwhile; printed, not judged.
  @EventLoopActor
  private static func others(_ daemon: RunningDaemon, begun: Promise<Void>, until isOver: Promise<Void>) async throws -> (
    count: Int, worst: Duration
  ) {
    let session = try await daemon.acquireQMP()
    try await session.write(#"{"execute":"qmp_capabilities"}"#)
    try await session.wait(for: #"{"return": {}}"#)
    var count = 0
    var worst = Duration.zero
    begun.fulfil()
    while isOver.result == nil {
      let start = ContinuousClock.now
      count += 1
      try await session.write(#"{"execute":"query-status","id":"n\#(count)"}"#)
      try await session.wait(for: #""id": "n\#(count)""#)
      worst = max(worst, .now - start)
      session.forget()
    }
    return (count, worst)
  }

  /// Runs `attack` beside a session that works, and tells how that one fared.
  @EventLoopActor
  private static func besideOthers(_ name: String, _ daemon: RunningDaemon, _ attack: @EventLoopActor () async throws -> Void) async throws
  {
    let resident = RunningDaemon.status(of: daemon.process, "VmRSS")
    let isOver = Promise<Void>()
    let begun = Promise<Void>()
    let others = Task(executorPreference: EventLoop.shared) { try await Self.others(daemon, begun: begun, until: isOver) }
    await begun.value
    do {
      try await attack()
    } catch {
      isOver.fulfil()
      throw error
    }
    isOver.fulfil()
    let (count, worst) = try await others.value
    let grown = RunningDaemon.status(of: daemon.process, "VmHWM") - resident
    print("\(name): daemon's memory grew by \(grown) KiB at the most; others made \(count) round trips, the longest \(worst)")
    #expect(count > 0)
    #expect(grown < 64 << 10, "the daemon's peak grew by \(grown) KiB")
  }

  @Test("a flood of commands whose replies are not read ends the session, and says why") @EventLoopActor
  func flood() async throws {
    let options = ["run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--unread-limit", "4", "--", "-machine", "none"]
    _ = try await withDaemon(options) { daemon in
      let qemu = try daemon.qemu()
      try await Self.besideOthers("flood", daemon) {
        let flooder = try await daemon.acquireQMP()
        flooder.reads = false
        try await flooder.write(#"{"execute":"qmp_capabilities"}"#)
        let schemas = String(repeating: #"{"execute":"query-qmp-schema"}"#, count: 500)
        await #expect(throws: SystemdError.self) { for _ in 0..<1000 { try await flooder.write(schemas) } }
      }
      try await StormTests.quiet(daemon)
      #expect(daemon.log.contains("the client left more than 4194304 bytes unread"))
      #expect(RunningDaemon.status(of: qemu, "VmHWM") < 400 << 10)
    }
  }

  @Test("a client that sends its bytes one by one") @EventLoopActor
  func dawdle() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      try await Self.besideOthers("one by one", daemon) {
        let dawdler = try await daemon.acquireQMP()
        for byte in Array(#"{"execute": "qmp_capabilities"} {"execute": "query-name", "id": 1}"#.utf8) {
          try await dawdler.write([byte])
          _ = try await daemon.call("io.systemd.MachineInstance.Describe")
        }
        try await dawdler.wait(for: #""id": 1}"#)
      }
    }
  }

  @Test("100 MiB in one string") @EventLoopActor
  func longString() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      try await Self.besideOthers("100 MiB string", daemon) {
        let client = try await daemon.acquireQMP()
        try await client.write(#"{"execute":"qmp_capabilities"}{"execute":""#)
        // QEMU takes some 150 KB a second, so it would be at this for ten minutes: what is shown is that the daemon holds
        // back, does not hoard, and lets go when the client does.
        let chunk = [UInt8](repeating: UInt8(ascii: "x"), count: 1 << 20)
        let sent = Promise<Void>()
        let sending = startTask {
          do {
            for _ in 0..<100 { try await client.write(chunk) }
            sent.fulfil()
          } catch {}
        }
        #expect(await sent.value(within: .seconds(5)) == nil, "it is not taken in at once")
        client.close()
        await sending.value
      }
    }
  }

  @Test("nesting 100,000 deep") @EventLoopActor
  func deepNesting() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      try await Self.besideOthers("nesting", daemon) {
        let client = try await daemon.acquireQMP()
        try await client.write(#"{"execute":"qmp_capabilities"}{"execute":"# + String(repeating: "[", count: 100_000))
        try await client.wait(for: "nesting depth limit exceeded")
        client.close()
      }
    }
  }
}
