import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import Machine
@testable import QMP

@Suite(.onEventLoop) struct StatusQueryTests {
  private static func answer(_ status: String) -> String { #"{"return": {"status": "\#(status)"}}"# }

  @EventLoopActor
  private static func ask(_ query: StatusQuery) -> Promise<String> {
    let answer = Promise<String>()
    startTask {
      do throws(QMPError) { answer.fulfil(try await query.ask()["status"]?.string ?? "?") } catch { answer.fulfil("\(error)") }
    }
    return answer
  }

  @Test("who asks while a question is under way shares the next one, and never gets the older answer") @EventLoopActor
  func shared() async throws {
    let test = try Hotplugging { _ in "" }
    let query = StatusQuery(test.control)
    let first = Self.ask(query)
    try await test.qemu.wait(forCommands: 1)
    let others = (0..<100).map { _ in Self.ask(query) }
    try await quiet()
    #expect(test.qemu.commands.count == 1)
    try await test.qemu.peer.write(Self.answer("one"))
    #expect(try await first.soon() == "one")
    try await test.qemu.wait(forCommands: 2)
    let late = Self.ask(query)
    try await quiet()
    #expect(test.qemu.commands.count == 2 && others.allSatisfy { $0.result == nil })
    try await test.qemu.peer.write(Self.answer("two"))
    for other in others { #expect(try await other.soon() == "two") }
    try await test.qemu.wait(forCommands: 3)
    try await test.qemu.peer.write(Self.answer("three"))
    #expect(try await late.soon() == "three")
    // At rest again: the next one is asked at once.
    let last = Self.ask(query)
    try await test.qemu.wait(forCommands: 4)
    try await test.qemu.peer.write(Self.answer("four"))
    #expect(try await last.soon() == "four")
    #expect(test.qemu.commands.count == 4)
  }

  @Test("when QEMU goes, everybody learns of it") @EventLoopActor
  func disconnected() async throws {
    let test = try Hotplugging { _ in "" }
    let query = StatusQuery(test.control)
    let asking = (0..<3).map { _ in Self.ask(query) }
    try await test.qemu.wait(forCommands: 1)
    test.qemu.peer.close()
    for answer in asking { #expect(try await answer.soon() == "\(QMPError.disconnected)") }
    #expect(try await Self.ask(query).soon() == "\(QMPError.disconnected)")
  }
}
