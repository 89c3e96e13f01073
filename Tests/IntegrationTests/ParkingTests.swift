import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// Sessions that lose their monitors while they say nothing, on a real QEMU.
@Suite("idle sessions give their monitors back", .onEventLoop, .serialized)
struct ParkingTests {
  static func machine(_ options: String...) -> [String] { machine(options) }
  static func machine(_ options: [String]) -> [String] {
    ["run", "--machine", "test", "--accel", "tcg", "--memory", "64M"] + options + ["--", "-machine", "none"]
  }
  static let soon = ["--park-after", "0.05"]
  static let negotiation = #"{"execute":"qmp_capabilities"}"#
  static let outOfBand = #"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#

  /// A negotiated session.
  @EventLoopActor
  static func session(_ daemon: RunningDaemon, _ negotiation: String = negotiation) async throws -> Peer {
    let session = try await daemon.acquireQMP()
    try await session.write(negotiation)
    try await session.wait(for: #"{"return": {}}"#)
    return session
  }

  /// Waits until as many sessions as that are parked.
  @EventLoopActor
  static func parked(_ count: Int, _ daemon: RunningDaemon) async throws {
    let watcher = try daemon.connect()
    let list = try await watcher.call("io.qmpvarlink.Sessions.Watch", flags: #","more":true"#)
    var states: [Substring: Bool] = [:]
    func note(_ message: String) {
      for part in message.split(separator: #"{"id":""#).dropFirst() {
        let id = part.prefix { $0 != "\"" }
        states[id] = message.contains(#""change":"closed""#) ? nil : part.contains(#""state":"parked""#)
      }
    }
    note(list)
    while states.count(where: \.value) < count { note(try await watcher.receive()) }
  }

  /// The events that a session had.
  @EventLoopActor
  static func events(_ session: Peer) -> [Substring] {
    session.text.split(whereSeparator: \.isNewline).filter { $0.hasPrefix(#"{"timestamp""#) }
  }

  @Test("a parked session has no monitor, has its events, and answers") @EventLoopActor
  func parkAndWake() async throws {
    _ = try await withDaemon(Self.machine("--park-after", "0.05")) { daemon in
      let witness = try await Self.session(daemon, Self.outOfBand)
      let session = try await Self.session(daemon)
      let silent = try await daemon.acquireQMP()
      try await silent.wait(for: #""QMP""#)
      for round in 1...5 {
        try await Self.parked(2, daemon)
        let listed = try await daemon.call("io.qmpvarlink.Sessions.List")
        #expect(listed.split(separator: #""state":"parked""#).count == 3, "\(listed)")
        #expect(listed.split(separator: #""monitor":""#).count == 2 && listed.split(separator: #""chardev":""#).count == 2, "\(listed)")
        try await witness.write(#"{"execute":"stop","id":"a\#(round)"}{"execute":"cont","id":"b\#(round)"}"#)
        try await witness.wait(for: #""id": "b\#(round)"}"#)
        try await session.wait("both events") { Self.events($0).count == 2 * round }
        try await session.write(#"{"execute":"query-name","id":\#(round)}"#)
        try await session.wait(for: #"{"return": {"name": "test"}, "id": \#(round)}"#)
      }
      #expect(Self.events(session) == Self.events(witness))
      #expect(session.text.split(separator: "\"QMP\"").count == 2)
      // One that had not negotiated has not: it is greeted once, has no events, and negotiates.
      try await silent.write(#"{"execute":"query-name"}"# + Self.negotiation + #"{"execute":"query-name","id":"x"}"#)
      try await silent.wait(for: #""id": "x"}"#)
      #expect(silent.text.split(separator: "\"QMP\"").count == 2)
      #expect(silent.text.contains("Expecting capabilities negotiation"))
      #expect(Self.events(silent) == [])
    }
  }

  @Test("what lives in a monitor keeps it: out-of-band execution, passed descriptors, what is not plain JSON")
  @EventLoopActor
  func unparkable() async throws {
    _ = try await withDaemon(Self.machine("--park-after", "0.05")) { daemon in
      let outOfBand = try await Self.session(daemon, Self.outOfBand)
      let descriptor = try await Self.session(daemon)
      let file = open("/dev/null", O_RDWR)
      try await descriptor.write(#"{"execute":"getfd","arguments":{"fdname":"x"},"id":1}"#, descriptors: [file])
      try await descriptor.wait(for: #"{"return": {}, "id": 1}"#)
      close(file)
      let malformed = try await Self.session(daemon)
      try await malformed.write("{'execute': 'query-name', 'id': 2}")
      try await malformed.wait(for: #""id": 2}"#)
      // Whoever came later is looked at later.
      let parked = try await Self.session(daemon)
      try await Self.parked(1, daemon)
      let listed = try await daemon.call("io.qmpvarlink.Sessions.List")
      #expect(listed.split(separator: #""state":"active""#).count == 4, "\(listed)")
      #expect(listed.split(separator: #""state":"parked""#).count == 2, "\(listed)")
      try await outOfBand.write(#"{"exec-oob":"query-name"}{"execute":"query-name","id":"still"}"#)
      try await outOfBand.wait(for: #""id": "still"}"#)
      try await descriptor.write(#"{"execute":"closefd","arguments":{"fdname":"x"},"id":4}"#)
      try await descriptor.wait(for: #"{"return": {}, "id": 4}"#)
      withExtendedLifetime(parked) {}
    }
  }

  @Test("malformed input behind a pause has the answer that it has without one, with the same place in it") @EventLoopActor
  func malformedInput() async throws {
    var answers: [[Substring]] = []
    for pause in [true, false] {
      _ = try await withDaemon(Self.machine("--park-after", pause ? "0.05" : "never")) { daemon in
        let session = try await Self.session(daemon, #"{ "execute" : "qmp_capabilities" }"# + "\n  ")
        if pause { try await Self.parked(1, daemon) }
        try await session.write(
          #" {"execute": "query-name", "id": 1} {"execute": nonsense}"# + "\n" + #"{"execute": "query-name", "id": 2}"#)
        try await session.wait(for: #""id": 2}"#)
        answers.append(session.text.split(whereSeparator: \.isNewline).filter { $0.contains("error") })
      }
    }
    #expect(answers[0] == answers[1] && !answers[0].isEmpty, "\(answers)")
  }

  @Test("parked sessions end as others do: the client hangs up or half-closes, Close, the daemon's end, QEMU's end") @EventLoopActor
  func ends() async throws {
    let (_, status) = try await withDaemon(Self.machine("--park-after", "0.05")) { daemon in
      _ = try await daemon.qmp(#"{"execute":"query-name"}"#)
      let before = try await daemon.settledDescriptorCounts()
      let sessions = try await (0..<5).asyncMap { _ in try await Self.session(daemon) }
      try await Self.parked(5, daemon)
      let listed = try await daemon.call("io.qmpvarlink.Sessions.List")
      let ids = listed.split(separator: #"{"id":""#).dropFirst().map { $0.prefix { $0 != "\"" } }
      sessions[0].close()
      sessions[1].endWriting()
      try await sessions[1].waitForEnd()
      // A last word before the end of file is executed.
      try await sessions[2].write(#"{"execute":"query-name","id":"last"}"#)
      sessions[2].endWriting()
      try await sessions[2].waitForEnd()
      #expect(sessions[2].text.contains(#""id": "last"}"#))
      #expect(try await daemon.call("io.qmpvarlink.Sessions.Close", #"{"id":"\#(ids[3])"}"#) == "{}")
      try await sessions[3].waitForEnd()
      try await sessions[4].write(#"{"execute":"query-name","id":"alive"}"#)
      try await sessions[4].wait(for: #""id": "alive"}"#)
      sessions[4].endWriting()
      try await sessions[4].waitForEnd()
      for session in sessions { session.close() }
      try await StormTests.quiet(daemon)
      #expect(try await daemon.settledDescriptorCounts() == before)
      // The daemon is asked to stop with this one.
      let last = try await Self.session(daemon)
      try await Self.parked(1, daemon)
      withExtendedLifetime(last) {}
    }
    #expect(status == 0)
    _ = try await withDaemon(Self.machine("--park-after", "0.05")) { daemon in
      let last = try await Self.session(daemon)
      try await Self.parked(1, daemon)
      kill(try daemon.qemu(), SIGTERM)
      try await last.waitForEnd()
      #expect(last.text.contains(#""event": "SHUTDOWN""#))
    }
  }
}

extension Sequence {
  /// `map` with a closure that waits.
  @EventLoopActor
  func asyncMap<T>(_ transform: (Element) async throws -> T) async rethrows -> [T] {
    var result: [T] = []
    for element in self { result.append(try await transform(element)) }
    return result
  }
}
