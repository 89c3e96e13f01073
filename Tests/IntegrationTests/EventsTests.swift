import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("SubscribeEvents on a real QEMU", .onEventLoop)
struct EventsTests {
  private static let method = "io.systemd.MachineInstance.SubscribeEvents"
  private static let ready = #"{"parameters":{"event":"READY"},"continues":true}"#

  /// A subscriber that has got its READY.
  @EventLoopActor
  private static func subscriber(_ daemon: RunningDaemon, _ filter: String? = nil) async throws -> VarlinkPeer {
    let subscriber = try daemon.connect()
    let parameters = filter.map { #"{"filter":\#($0)}"# } ?? "{}"
    #expect(try await subscriber.call(method, parameters, flags: #","more":true"#) == ready)
    return subscriber
  }

  /// The names of all events that a subscriber got, READY included.
  private static func names(_ text: String) -> [Substring] {
    text.split(separator: #""event":""#).dropFirst().map { $0.prefix { $0 != "\"" } }
  }

  @Test("null and nothing are all events, names are those, patterns are as a shell's") @EventLoopActor
  func filters() async throws {
    let filters: [(String?, [Substring])] = [
      (nil, ["STOP", "RESUME", "RESET", "SHUTDOWN"]), ("null", ["STOP", "RESUME", "RESET", "SHUTDOWN"]),
      ("[]", ["STOP", "RESUME", "RESET", "SHUTDOWN"]), (#"["RESUME"]"#, ["RESUME"]), (#"["RESUME","SHUTDOWN"]"#, ["RESUME", "SHUTDOWN"]),
      (#"["RES*"]"#, ["RESUME", "RESET"]), (#"["S?O?","[A-R]ESET"]"#, ["STOP", "RESET"]),
      (#"["*"]"#, ["STOP", "RESUME", "RESET", "SHUTDOWN"]),
      (#"["stop","NOPE"]"#, []), (#"["READY"]"#, []),
    ]
    let (subscribers, status) = try await withDaemon(bareMachine) { daemon in
      var subscribers: [VarlinkPeer] = []
      for (filter, _) in filters { subscribers.append(try await Self.subscriber(daemon, filter)) }
      for verb in ["Pause", "Resume", "Reboot", "Terminate"] {
        #expect(try await daemon.call("io.systemd.MachineInstance.\(verb)") == "{}")
      }
      for subscriber in subscribers { try await subscriber.peer.waitForEnd() }
      return subscribers
    }
    #expect(status == 0)
    for ((filter, expected), subscriber) in zip(filters, subscribers) {
      #expect(Self.names(subscriber.peer.text) == ["READY"] + expected, "\(filter ?? "none")")
    }
  }

  @Test("jobs of the daemon's own stay internal, a caller's do not") @EventLoopActor
  func jobs() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let subscriber = try await Self.subscriber(daemon)
      let image = daemon.directory.appending("image")
      for job in ["qv-1", "mine"] {
        let options = #"{"driver":"file","filename":"\#(image)","size":0}"#
        #expect(
          try await daemon.qmp(#"{"execute":"blockdev-create","arguments":{"job-id":"\#(job)","options":\#(options)}}"#)
            == #"{"return": {}}"#)
      }
      try await subscriber.peer.wait(for: #""status":"concluded","id":"mine""#)
      #expect(!subscriber.peer.text.contains("qv-1"))
    }
  }

  /// Has the machine stop and go on so many times.
  @EventLoopActor
  private static func flood(_ daemon: RunningDaemon, _ rounds: Int) async throws {
    let session = try await daemon.acquireQMP()
    try await session.write(#"{"execute":"qmp_capabilities"}"#)
    let part = [String](repeating: #"{"execute":"stop"}{"execute":"cont"}"#, count: 100).joined()
    for number in 0..<(rounds / 100) {
      try await session.write(part + #"{"execute":"query-name","id":"\#(number)"}"#)
      try await session.wait(for: #""id": "\#(number)"}"#)
      session.forget()
    }
  }

  @Test("a subscriber that does not read gets all up to OVERFLOW, and others get all") @EventLoopActor
  func overflow() async throws {
    let machine = ["run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--unread-limit", "1", "--", "-machine", "none"]
    _ = try await withDaemon(machine) { daemon in
      let slow = try await Self.subscriber(daemon)
      slow.peer.reads = false
      let reader = try await Self.subscriber(daemon, #"["RESUME"]"#)
      let rounds = 7000
      try await Self.flood(daemon, rounds)
      try await reader.peer.wait("all events") { Self.names($0.text).count == rounds + 1 }
      slow.peer.reads = true
      // Its last message: the stream is over, the connection is not.
      let last = #"{"parameters":{"event":"OVERFLOW"}}"#
      try await slow.peer.wait(for: last)
      let names = Self.names(slow.peer.text).dropFirst()
      #expect(names.last == "OVERFLOW" && names.count > 5000 && names.count < 2 * rounds)
      #expect(names.dropLast().enumerated().allSatisfy { $0.element == ($0.offset.isMultiple(of: 2) ? "STOP" : "RESUME") })
      try await slow.send("io.systemd.MachineInstance.Describe")
      try await slow.peer.wait(for: #""status":"running""#)
    }
  }

  @Test("a slow subscriber gets all, SHUTDOWN at the end, when QEMU is killed") @EventLoopActor
  func slowAtTheEnd() async throws {
    let (status, _) = try await withDaemon(bareMachine) { daemon in
      let slow = try await Self.subscriber(daemon)
      let quick = try await Self.subscriber(daemon)
      slow.peer.reads = false
      try await Self.flood(daemon, 4000)
      kill(try daemon.qemu(), SIGKILL)
      try await quick.peer.waitForEnd()
      slow.peer.reads = true
      try await slow.peer.waitForEnd()
      #expect(slow.peer.text == quick.peer.text)
      #expect(
        slow.peer.text.hasSuffix(
          #"{"parameters":{"event":"SHUTDOWN","data":{"guest":false,"reason":"disconnected"}},"continues":true}"# + "\0"))
      #expect(Self.names(slow.peer.text).count == 1 + 8000 + 1)
      return 0
    }
    #expect(status == 0)
  }
}
