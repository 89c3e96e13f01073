import SystemdEvent
import TestSupport
import Testing

@testable import Machine
@testable import QMP

/// Every operation, with every one of its commands refused, or not answered in time: QEMU is as it was, and the operation can be done
/// again.
@Suite(.onEventLoop) struct StorageFailureTests {
  enum Operation: CaseIterable {
    case addBlock, addSCSI, addSecondSCSI, replace, remove

    /// Does what comes before it.
    @EventLoopActor func prepare(_ storage: Storage) async throws {
      switch self {
      case .addBlock: try await storage.add("other", .temporary(), .nvme)
      case .addSCSI: try await storage.add("other", .temporary(), .virtioBlock)
      case .addSecondSCSI: try await storage.add("other", .temporary(), .scsiCD)
      case .replace, .remove: try await storage.add("a", .temporary(), .virtioBlock)
      }
    }

    @EventLoopActor func run(_ storage: Storage) async throws {
      switch self {
      case .addBlock: try await storage.add("a", .temporary(), .virtioBlock)
      case .addSCSI, .addSecondSCSI: try await storage.add("a", .temporary(), .virtioSCSI)
      case .replace: try await storage.replace("a", with: .temporary())
      case .remove: try await storage.remove("a")
      }
    }

    /// How many commands it takes.
    var commands: Int {
      switch self {
      case .addBlock, .addSecondSCSI: 5
      case .addSCSI: 6
      case .replace: 5
      case .remove: 1
      }
    }
  }

  @Test("a command that is refused", arguments: Operation.allCases) @EventLoopActor
  func refused(operation: Operation) async throws {
    for step in 1...operation.commands {
      let played = try PlayedStorage()
      try await operation.prepare(played.storage)
      let before = played.contents
      played.refused = step
      await #expect("step \(step)") { try await operation.run(played.storage) } throws: { "\($0)".contains("GenericError") }
      try await played.settle()
      #expect(played.contents == before, "step \(step)")
      let count = played.qemu.commands.count
      try await operation.run(played.storage)
      #expect(try played.names(after: count).count >= operation.commands, "step \(step)")
    }
  }

  @Test("a command that is not answered in time: taken back, or finished, when QEMU answers again", arguments: Operation.allCases)
  @EventLoopActor
  func notAnswered(operation: Operation) async throws {
    for step in 1...operation.commands {
      let played = try PlayedStorage()
      try await operation.prepare(played.storage)
      let before = played.contents
      played.client.responseLimit = .milliseconds(100)
      played.heldBack = step
      await #expect("step \(step)") { try await operation.run(played.storage) } throws: { "\($0)" == "\(QMPError.timedOut)" }
      played.client.responseLimit = nil
      try await played.answerAgain()
      try await played.settle()
      switch operation {
      case .addBlock, .addSecondSCSI: #expect(played.contents == before, "step \(step)")
      case .addSCSI:
        // The controller was made by then, or is taken back.
        #expect(played.contents.nodes == before.nodes && played.contents.drives == before.drives, "step \(step)")
        #expect(played.contents.devices == before.devices, "step \(step)")
      case .replace: #expect(played.contents.nodes.count == before.nodes.count && played.contents.devices == before.devices, "step \(step)")
      case .remove: #expect(played.contents == PlayedStorage.Contents())
      }
      #expect(played.contents.sets.isEmpty)
      if operation != .remove { try await operation.run(played.storage) }
    }
  }

  @Test("what takes back a failure is not answered in time either", arguments: [Operation.addBlock, .addSecondSCSI, .replace])
  @EventLoopActor
  func undoNotAnswered(operation: Operation) async throws {
    let played = try PlayedStorage()
    try await operation.prepare(played.storage)
    let before = played.contents
    played.refused = operation.commands
    played.heldBack = operation.commands + 1
    played.impatient = operation.commands + 1
    await #expect { try await operation.run(played.storage) } throws: { "\($0)".contains("GenericError") }
    await #expect { try await played.storage.remove("a") } throws: { $0.isBusyStorage || "\($0)" == "\(QMPError.timedOut)" }
    played.client.responseLimit = nil
    try await played.answerAgain()
    try await played.settle()
    #expect(played.contents == before)
    try await operation.run(played.storage)
  }

  @Test("QEMU gone in the middle: the operation fails, and nothing waits", arguments: Operation.allCases) @EventLoopActor
  func gone(operation: Operation) async throws {
    for step in 1...operation.commands {
      let played = try PlayedStorage()
      try await operation.prepare(played.storage)
      let count = played.qemu.commands.count
      played.heldBack = step
      let running = Task(executorPreference: EventLoop.shared) { try await operation.run(played.storage) }
      try await played.qemu.wait(forCommands: count + step)
      played.qemu.peer.close()
      await #expect("step \(step)") { try await running.value } throws: { "\($0)" == "\(QMPError.disconnected)" }
      try await played.settle()
    }
  }

  @Test("a replacement whose end is in doubt stays where it is once the old file's node is gone") @EventLoopActor
  func replacementInDoubt() async throws {
    let played = try PlayedStorage()
    try await played.storage.add("a", .temporary(), .virtioBlock)
    // The deletion of the old node is executed, and its reply late.
    played.heldBack = 5
    played.impatient = 5
    await #expect { try await played.storage.replace("a", with: .temporary()) } throws: { "\($0)" == "\(QMPError.timedOut)" }
    await #expect { try await played.storage.remove("a") } throws: { $0.isBusyStorage }
    played.client.responseLimit = nil
    try await played.answerAgain()
    try await played.settle()
    #expect(played.contents.nodes == ["qv-d2": "qv-f3", "qv-f3": "/dev/fdset/1364590595"])
    try await played.storage.remove("a")
    try await played.settle()
    #expect(played.contents == PlayedStorage.Contents())
  }
}
