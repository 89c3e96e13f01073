import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// Sessions with random loads that end at random moments, in every way that a client can go.
@Suite("sessions that come and go at the wrong moments", .onEventLoop, .serialized)
struct StormTests {
  private static let request = Array(#"{"method":"io.systemd.QemuMachineInstance.AcquireQMP","upgrade":true}"#.utf8) + [0]
  private static let negotiations = [
    "", #"{"execute":"qmp_capabilities"}"#, #"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#,
  ]
  private static let commands = [
    #"{"execute":"query-version"}"#, #"{"execute":"query-name","id":7}"#, #"{"execute":"query-qmp-schema"}"#, #"{"execute":"stop"}"#,
    #"{"execute":"cont"}"#, "{]", "nonsense ", #"{"exec-oob":"migrate-pause","id":1}"#, #"{"execute":"nope"}"#, "[1,",
  ]
  private static let cutOff = ["", #"{"execute":"query-ver"#, #""abc"#, #"{"a":["#].map { Array($0.utf8) } + [[0xFF]]

  /// A moment to hang up at.
  private enum Ending: CaseIterable {
    case beforeTheReply, behindPipelinedCommands, amidCommands, amidReplies, halfClosed
  }

  private static func load(_ random: inout SplitMix) -> [UInt8] {
    var load = negotiations.pick(&random)
    if !load.isEmpty || Bool.random(using: &random) {
      for _ in 0..<Int.random(in: 0..<7, using: &random) { load += commands.pick(&random) }
    }
    return Array(load.utf8) + cutOff.pick(&random)
  }

  @EventLoopActor
  private static func session(_ daemon: RunningDaemon, _ random: inout SplitMix) async throws {
    let load = load(&random)
    let connection = try daemon.connect()
    let peer = connection.peer
    let ending = Ending.allCases.pick(&random)
    if ending == .behindPipelinedCommands {
      try await peer.write(request + load)
      return peer.close()
    }
    try await peer.write(request)
    if ending == .beforeTheReply { return peer.close() }
    let reply = try await connection.receive()
    #expect(reply.hasPrefix(#"{"parameters":{"id":"qv-"#))
    try await peer.write(load)
    switch ending {
    case .amidReplies: try await peer.wait("the greeting's beginning") { $0.received.count > 8 }
    case .halfClosed:
      peer.endWriting()
      try await peer.waitForEnd()
      let session = peer.received.drop { $0 != 0 }.dropFirst()
      #expect(session.starts(with: #"{"QMP""#.utf8))
    default: break
    }
    peer.close()
  }

  @Test("a thousand sessions, 8 at once: QEMU lives, Describe answers, nothing is left", arguments: 1...UInt64(Campaign.seeds))
  @EventLoopActor
  func storm(seed: UInt64) async throws {
    let (_, status) = try await withDaemon(bareMachine) { daemon in
      // What is made once, on first use, is there before the count.
      _ = try await daemon.qmp(#"{"execute":"query-name"}"#)
      try await Self.quiet(daemon)
      let before = try await daemon.settledDescriptorCounts()
      let start = ContinuousClock.now
      let storms = (0..<Campaign.parallel).map { number in
        Task(executorPreference: EventLoop.shared) {
          try await Self.sessions(Campaign.sessions / Campaign.parallel, daemon, SplitMix(seed: seed &* 1000 &+ UInt64(number)))
        }
      }
      let isOver = Promise<Void>()
      let describing = Task(executorPreference: EventLoop.shared) { try await Self.describe(daemon, until: isOver) }
      for storm in storms { try await storm.value }
      isOver.fulfil()
      let described = try await describing.value
      #expect(described > 10)
      print("seed \(seed): \(Campaign.sessions) sessions in \(ContinuousClock.now - start), \(described) times described meanwhile")

      try await Self.quiet(daemon)
      #expect(try await daemon.settledDescriptorCounts() == before)
      #expect(RunningDaemon.status(of: daemon.process, "Threads") == 1 + Campaign.sanitizerThreads)
    }
    #expect(status == 0)
  }

  @EventLoopActor
  private static func sessions(_ count: Int, _ daemon: RunningDaemon, _ random: SplitMix) async throws {
    var random = random
    for _ in 0..<count { try await session(daemon, &random) }
  }

  @EventLoopActor
  private static func describe(_ daemon: RunningDaemon, until isOver: Promise<Void>) async throws -> Int {
    let connection = try daemon.connect()
    var count = 0
    while isOver.result == nil {
      #expect(try await connection.call("io.systemd.MachineInstance.Describe").contains(#""status":"#))
      count += 1
    }
    return count
  }

  /// Waits until the sessions that were left alone have been cleared up: QEMU has the control monitor, its spare, and the one
  /// that asks.
  @EventLoopActor
  static func quiet(_ daemon: RunningDaemon) async throws {
    var last = ""
    for _ in 0..<1000 {
      let monitors = try await daemon.qmp(#"{"execute":"qom-list","arguments":{"path":"/objects"}}"#)
      let chardevs = try await daemon.qmp(#"{"execute":"query-chardev"}"#)
      let left = [monitors, chardevs].map { $0.split(separator: #""qv-"#).count - 1 }
      if left == [3, 3] { return }
      last = monitors + chardevs
    }
    Issue.record("monitors or chardevs of ended sessions are left: \(last)")
  }
}
