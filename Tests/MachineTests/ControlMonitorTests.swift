import SystemdEvent
import TestSupport
import Testing

@testable import Machine
@testable import QMP

@Suite(.onEventLoop) struct ControlMonitorTests {
  /// A control monitor and its spare, which the test plays both.
  @EventLoopActor
  struct Pair {
    let control: ControlMonitor
    let first: Peer
    let spare: Peer

    init(responseLimit: Duration) throws {
      let (ours, theirs) = try socketPair()
      let (spareOurs, spareTheirs) = try socketPair()
      first = try Peer(OwnedDescriptor(owning: theirs))
      spare = try Peer(OwnedDescriptor(owning: spareTheirs))
      control = ControlMonitor(
        try QMPClient(OwnedDescriptor(owning: ours)), id: "qv-1", responseLimit: responseLimit, logger: ScriptedQEMU.silent)
      let spareClient = try QMPClient(OwnedDescriptor(owning: spareOurs))
      control.keep(spare: spareClient, id: "qv-2")
      // The test answers as late as it likes.
      spareClient.responseLimit = nil
    }
  }

  static let status = #"{"execute":"query-status"}"#

  @Test("when the control monitor goes and QEMU answers on the spare one, that takes its place") @EventLoopActor
  func takesOver() async throws {
    let pair = try Pair(responseLimit: patience)
    let takenOver = Promise<String?>()
    pair.control.onTakeOver = { takenOver.fulfil($0) }
    var events: [String] = []
    pair.control.onEvent = { events.append($0.name) }
    pair.first.close()
    try await pair.spare.wait(for: Self.status)
    try await pair.spare.write(ScriptedQEMU.done)
    #expect(try await takenOver.soon() == "qv-1")
    #expect(pair.control.lost.result == nil && !pair.control.hasSpare)
    try await pair.spare.write(#"{"timestamp": {}, "event": "STOP"}"#)
    startTask { [control = pair.control] in _ = try? await control.execute("next") }
    try await pair.spare.wait(for: #"{"execute":"next"}"#)
    try await quiet()
    #expect(events == ["STOP"])
  }

  @Test("when both go, QEMU is lost") @EventLoopActor
  func bothGo() async throws {
    let pair = try Pair(responseLimit: patience)
    pair.spare.close()
    pair.first.close()
    #expect(try await pair.control.lost.soon() == .disconnected)
  }

  @Test("a control monitor that answers late is kept") @EventLoopActor
  func late() async throws {
    let pair = try Pair(responseLimit: .milliseconds(20))
    startTask { [control = pair.control] in _ = try? await control.execute("slow") }
    try await pair.spare.wait(for: Self.status)
    try await pair.first.wait(for: #""id":"#)
    let probe = try #require(pair.first.text.split(separator: #""id":"#).last?.prefix { $0 != "}" })
    try await pair.first.write(ScriptedQEMU.done + #"{"return": {}, "id": \#(probe)}"#)
    while !pair.control.isResponding { try await quiet() }
    try await pair.spare.write(ScriptedQEMU.done)
    try await quiet()
    #expect(pair.control.hasSpare)
    startTask { [control = pair.control] in _ = try? await control.execute("next") }
    try await pair.first.wait(for: #"{"execute":"next"}"#)
  }
}
