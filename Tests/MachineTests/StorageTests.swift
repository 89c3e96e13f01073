import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import Machine
@testable import QMP

@Suite(.onEventLoop) struct StorageTests {
  /// What is asked before the first operation.
  static let inventory = 3

  @Test("a drive is a node for the descriptor, a node on top, and a device on a port of its own") @EventLoopActor
  func commands() async throws {
    let played = try PlayedStorage()
    try await played.storage.add("a", .temporary(), .virtioBlock)
    #expect(
      played.qemu.commands[Self.inventory...] == [
        #"{"execute":"add-fd","arguments":{"fdset-id":1364590593}}"#,
        #"{"execute":"blockdev-add","arguments":{"driver":"file","node-name":"qv-f1","filename":"/dev/fdset/1364590593","read-only":false}}"#,
        #"{"execute":"remove-fd","arguments":{"fdset-id":1364590593}}"#,
        #"{"execute":"blockdev-add","arguments":{"driver":"raw","node-name":"qv-d2","file":"qv-f1","read-only":false}}"#,
        #"{"execute":"device_add","arguments":{"driver":"virtio-blk-pci","id":"qv-d2-a","bus":"qv-p0","drive":"qv-d2"}}"#,
      ])
    #expect(played.qemu.peer.descriptors.raw.count == 1)
    try await played.storage.remove("a")
    try await played.settle()
    #expect(played.contents == PlayedStorage.Contents())
    #expect(try played.names(after: Self.inventory + 5) == ["device_del", "blockdev-del", "blockdev-del"])
  }

  @Test("read-only descriptors make read-only drives; a CD is one whatever the descriptor") @EventLoopActor
  func readOnly() async throws {
    let played = try PlayedStorage()
    try await played.storage.add("disk", .temporary(readOnly: true), .nvme)
    try await played.storage.add("cd", .temporary(), .scsiCD)
    let nodes = played.qemu.commands.filter { $0.contains("blockdev-add") }.map { $0.hasSuffix(#""read-only":true}}"#) }
    #expect(nodes == [true, true, false, true])
    #expect(played.qemu.commands.contains { $0.contains(#""driver":"nvme""#) && $0.contains(#""serial":"qv-d2""#) })
  }

  @Test("SCSI drives share a controller, also when they come at once; it stays") @EventLoopActor
  func controller() async throws {
    let played = try PlayedStorage(ports: 1)
    let additions = ["a", "b", "c", "d"].map { name in
      Task(executorPreference: EventLoop.shared) { try await played.storage.add(name, .temporary(), .virtioSCSI) }
    }
    for addition in additions { try await addition.value }
    #expect(
      played.contents.devices.values.sorted() == ["qv-p0"]
        + [String](repeating: try #require(played.contents.devices.first { $0.value == "qv-p0" }).key + ".0", count: 4))
    await #expect { try await played.storage.add("e", .temporary(), .virtioBlock) } throws: {
      "\($0)" == "all 1 PCIe ports for hotplug are taken"
    }
    for name in ["a", "b", "c", "d"] { try await played.storage.remove(name) }
    try await played.settle()
    #expect(played.contents.devices.count == 1 && played.contents.nodes.isEmpty)
    try await played.storage.add("e", .temporary(), .scsiCD)
    #expect(played.contents.devices.count == 2)
  }

  @Test("a port is free again when the guest has let go of its device") @EventLoopActor
  func ports() async throws {
    let played = try PlayedStorage(ports: 2)
    played.guestLetsGo = false
    try await played.storage.add("a", .temporary(), .virtioBlock)
    try await played.storage.add("b", .temporary(), .nvme)
    let full = "all 2 PCIe ports for hotplug are taken"
    await #expect { try await played.storage.add("c", .temporary(), .virtioSCSI) } throws: { "\($0)" == full }
    let contents = played.contents
    try await played.storage.remove("a")
    await #expect { try await played.storage.add("c", .temporary(), .virtioBlock) } throws: { "\($0)" == full }
    #expect(played.contents == contents)
    try await played.letGo("qv-d2-a")
    try await played.settle()
    try await played.storage.add("c", .temporary(), .virtioBlock)
  }

  @Test("a machine without ports takes no drives") @EventLoopActor
  func noPorts() async throws {
    let played = try PlayedStorage(ports: 0)
    for configuration in StorageConfiguration.allCases {
      await #expect { try await played.storage.add("a", .temporary(), configuration) } throws: { error in
        if case .notSupported? = error as? StorageError { true } else { false }
      }
    }
    #expect(played.contents == PlayedStorage.Contents())
  }

  @Test("names: one drive each, those of the command line taken and immutable, unknown ones unknown") @EventLoopActor
  func names() async throws {
    let played = try PlayedStorage(
      drivesBefore: #"""
        {"device": "", "qdev": "/machine/peripheral/boot/virtio-backend", "inserted": {"node-name": "disk"}},
        {"device": "ide0-cd0", "qdev": "/machine/unattached/device[22]"}, {"device": "", "qdev": "nvme1", "inserted": {"node-name": "n"}},
        {"device": "", "qdev": "qv-d1", "inserted": {"node-name": "qv-d1"}}
        """#)
    for name in ["boot", "disk", "ide0-cd0", "nvme1", "n"] {
      await #expect { try await played.storage.add(name, .temporary(), .virtioBlock) } throws: { $0.isStorage(.exists) }
      await #expect { try await played.storage.remove(name) } throws: { $0.isStorage(.immutable) }
      await #expect { try await played.storage.replace(name, with: .temporary()) } throws: { $0.isStorage(.immutable) }
    }
    await #expect { try await played.storage.remove("qv-d1") } throws: { $0.isStorage(.notFound) }
    try await played.storage.add("new", .temporary(), .virtioBlock)
    await #expect { try await played.storage.add("new", .temporary(), .virtioBlock) } throws: { $0.isStorage(.exists) }
    await #expect { try await played.storage.replace("new", with: .temporary(readOnly: true)) } throws: { $0.isStorage(.readOnly) }
  }

  @Test("while the guest has not let go of a drive it is busy; a guest that keeps it has it back") @EventLoopActor
  func pending() async throws {
    let played = try PlayedStorage()
    played.guestLetsGo = false
    try await played.storage.add("a", .temporary(), .virtioBlock)
    try await played.storage.remove("a")
    await #expect { try await played.storage.remove("a") } throws: { $0.isBusyStorage }
    await #expect { try await played.storage.replace("a", with: .temporary()) } throws: { $0.isBusyStorage }
    await #expect { try await played.storage.add("a", .temporary(), .virtioBlock) } throws: { $0.isStorage(.exists) }
    try await played.qemu.peer.write(
      #"{"timestamp": {}, "event": "DEVICE_UNPLUG_GUEST_ERROR", "data": {"device": "qv-d2-a", "path": "x"}}"#)
    while (try? await played.storage.replace("a", with: .temporary())) == nil {}
    try await played.storage.remove("a")
    try await played.letGo("qv-d2-a")
    try await played.settle()
    #expect(played.contents == PlayedStorage.Contents())
    await #expect { try await played.storage.remove("a") } throws: { $0.isStorage(.notFound) }
  }

  @Test("a guest that has missed the question can be asked again") @EventLoopActor
  func askedAgain() async throws {
    let played = try PlayedStorage()
    played.guestLetsGo = false
    try await played.storage.add("a", .temporary(), .virtioBlock)
    try await played.storage.remove("a")
    await #expect { try await played.storage.remove("a") } throws: { $0.isBusyStorage }
    played.storage.answerLimit = .zero
    let before = played.qemu.commands.count
    try await played.storage.remove("a")
    #expect(try played.names(after: before) == ["device_del"])
    played.guestLetsGo = true
    try await played.storage.remove("a")
    try await played.settle()
    #expect(played.contents == PlayedStorage.Contents())
  }

  @Test("a name that is about to get free is waited for") @EventLoopActor
  func successor() async throws {
    let played = try PlayedStorage(ports: 1)
    played.guestLetsGo = false
    try await played.storage.add("a", .temporary(), .virtioBlock)
    try await played.storage.remove("a")
    let addition = Task(executorPreference: EventLoop.shared) { try await played.storage.add("a", .temporary(), .virtioBlock) }
    try await played.letGo("qv-d2-a")
    try await addition.value
    try await played.settle()
    #expect(played.contents.nodes.count == 2 && played.contents.devices.count == 1)
  }

  @Test("a replacement reopens the drive's node on the new file, and deletes the old one; a new size is told") @EventLoopActor
  func replace() async throws {
    let played = try PlayedStorage()
    try await played.storage.add("a", .temporary(size: 512), .virtioBlock)
    let before = played.qemu.commands.count
    try await played.storage.replace("a", with: .temporary(size: 1024))
    #expect(
      played.qemu.commands[(before + 3)...] == [
        #"{"execute":"blockdev-reopen","arguments":{"options":[{"driver":"raw","node-name":"qv-d2","file":"qv-f3","read-only":false}]}}"#,
        #"{"execute":"blockdev-del","arguments":{"node-name":"qv-f1"}}"#,
        #"{"execute":"block_resize","arguments":{"node-name":"qv-d2","size":1024}}"#,
      ])
    // Nothing to tell.
    let again = played.qemu.commands.count
    try await played.storage.replace("a", with: .temporary(size: 1024))
    try await played.storage.replace("a", with: .temporary(size: 1000))
    #expect(try !played.names(after: again).contains("block_resize"))
    #expect(played.contents.nodes.count == 2)
  }

  @Test("operations on different drives do not wait for each other; two on one drive are not possible") @EventLoopActor
  func atOnce() async throws {
    let played = try PlayedStorage()
    try await played.storage.add("a", .temporary(), .virtioBlock)
    played.heldBack = 1
    let replacement = Task(executorPreference: EventLoop.shared) { try await played.storage.replace("a", with: .temporary()) }
    let addition = Task(executorPreference: EventLoop.shared) { try await played.storage.add("b", .temporary(), .nvme) }
    try await played.qemu.wait(forCommands: Self.inventory + 5 + 4 + 4)
    await #expect { try await played.storage.replace("a", with: .temporary()) } throws: { $0.isBusyStorage }
    await #expect { try await played.storage.remove("a") } throws: { $0.isBusyStorage }
    await #expect { try await played.storage.remove("b") } throws: { $0.isBusyStorage }
    try await played.answerAgain()
    try await replacement.value
    try await addition.value
  }

  @Test("what a daemon before left: numbers go on, ports are taken, nodes that nothing uses are removed") @EventLoopActor
  func inherited() async throws {
    var contents = PlayedStorage.Contents()
    contents.devices = ["qv-d9": "qv-p0", "qv-sb": "qv-p2"]
    contents.drivers = ["qv-d9": "virtio-blk-pci", "qv-sb": "virtio-scsi-pci"]
    contents.nodes = ["qv-d9": "qv-f8", "qv-f8": "/dev/fdset/1", "qv-fa": "/dev/fdset/2", "other": "x"]
    contents.drives = ["qv-d9": "qv-d9"]
    let played = try PlayedStorage(contents: contents)
    try await played.storage.add("a", .temporary(), .virtioBlock)
    try await played.storage.add("b", .temporary(), .virtioBlock)
    #expect(played.contents.devices["qv-dd-a"] == "qv-p1" && played.contents.devices["qv-df-b"] == "qv-p3")
    #expect(played.contents.nodes["qv-fa"] == nil && played.contents.nodes["other"] != nil && played.contents.nodes["qv-f8"] != nil)
    // One without a name goes by its id.
    try await played.storage.remove("qv-d9")
    try await played.settle()
    #expect(played.contents.nodes["qv-f8"] == nil)
  }

  @Test("the drives of a daemon before are found again by their names: replaced, removed, and their places used again") @EventLoopActor
  func adopted() async throws {
    let first = try PlayedStorage(ports: 3)
    let names = ["plain-1.x", "a b/ü_\n\"", String(repeating: "long", count: 100), "scsi"]
    for name in names.dropLast() { try await first.storage.add(name, .temporary(size: 512), .virtioBlock) }
    try await first.storage.remove(names[0])
    try await first.storage.add(names[3], .temporary(size: 512), .virtioSCSI)
    try await first.storage.replace(names[3], with: .temporary(size: 512))
    let second = try PlayedStorage(ports: 3, contents: first.contents)
    for name in [names[1], names[3]] {
      await #expect { try await second.storage.add(name, .temporary(), .virtioBlock) } throws: { $0.isStorage(.exists) }
      try await second.storage.replace(name, with: .temporary(size: 512))
    }
    await #expect { try await second.storage.add("full", .temporary(), .nvme) } throws: {
      "\($0)" == "all 3 PCIe ports for hotplug are taken"
    }
    // On the controller that is there.
    try await second.storage.add("more", .temporary(), .virtioSCSI)
    try await second.storage.remove(names[1])
    try await second.storage.remove(names[3])
    try await second.storage.remove("more")
    // Its name did not fit.
    await #expect { try await second.storage.remove(names[2]) } throws: { $0.isStorage(.notFound) }
    let unnamed = try #require(second.contents.devices.keys.first { $0.hasPrefix("qv-d") })
    try await second.storage.remove(unnamed)
    try await second.settle()
    #expect(second.contents.nodes.isEmpty && second.contents.devices.keys.allSatisfy { $0.hasPrefix("qv-s") })
    try await second.storage.add("free again", .temporary(), .nvme)
    try await second.storage.add("and again", .temporary(), .nvme)
  }

  @Test(
    "a name is found again in an id",
    arguments: [
      ("plain-1.X", "plain-1.X"), ("a b", "a_20b"), ("_", "_5f"), ("ü\n", "_c3_bc_0a"), ("", nil),
      (String(repeating: "x", count: 161), nil),
    ] as [(String, String?)])
  func driveName(name: String, encoded: String?) {
    let text = DriveName.encode(name)
    if name.isEmpty { return #expect(DriveName.decode(text ?? "") == nil) }
    #expect(text == encoded)
    if let text { #expect(DriveName.decode(text) == name) }
  }

  @Test("what is no name is none", arguments: ["a b", "_", "_5", "_+5", "_-0", "_xy", "_ff", "ü", "a/b"])
  func noDriveName(text: String) { #expect(DriveName.decode(text) == nil) }

  @Test(
    "a drive that goes while the inventory is taken is in nobody's way",
    arguments: [
      "query-block", "query-named", "qom-get /machine/peripheral/qv-d9", "qom-list /machine/peripheral/qv-p0",
      "qom-list /machine/peripheral/qv-p1",
    ])
  @EventLoopActor
  func goneMeanwhile(before: String) async throws {
    var contents = PlayedStorage.Contents()
    contents.devices = ["qv-d9-a": "qv-p0"]
    contents.drivers = ["qv-d9-a": "virtio-blk-pci"]
    contents.nodes = ["qv-d9": "qv-f8", "qv-f8": "/dev/fdset/1"]
    contents.drives = ["qv-d9-a": "qv-d9"]
    let played = try PlayedStorage(ports: 2, contents: contents)
    played.leaves = (before, "qv-d9-a")
    try await played.storage.add("b", .temporary(), .virtioBlock)
    #expect(played.leaves == nil)
    // Its name is free, its port, and its nodes.
    await #expect { try await played.storage.remove("a") } throws: { $0.isStorage(.notFound) }
    try await played.storage.add("a", .temporary(), .virtioBlock)
    #expect(Set(played.contents.devices.values) == ["qv-p0", "qv-p1"])
    try await played.settle()
    #expect(played.contents.nodes["qv-d9"] == nil && played.contents.nodes["qv-f8"] == nil)
    await #expect { try await played.storage.add("c", .temporary(), .virtioBlock) } throws: {
      "\($0)" == "all 2 PCIe ports for hotplug are taken"
    }
  }

  @Test("a device that somebody else has deleted is gone for us too") @EventLoopActor
  func deletedByOthers() async throws {
    let played = try PlayedStorage(ports: 1)
    try await played.storage.add("a", .temporary(), .virtioBlock)
    try await played.letGo("qv-d2-a")
    try await quiet()
    try await played.settle()
    #expect(played.contents == PlayedStorage.Contents())
    try await played.storage.add("a", .temporary(), .virtioSCSI)
    // The event of this one is lost.
    let device = try #require(played.contents.devices.keys.first { $0.hasPrefix("qv-d") })
    _ = try await played.control.execute("device_del", .object(["id": .string(device)]))
    await played.storage.resynchronize()
    try await played.settle()
    await #expect { try await played.storage.remove("a") } throws: { $0.isStorage(.notFound) }
  }
}

extension Error {
  /// Whether this is that error, told by its words.
  func isStorage(_ error: StorageError) -> Bool { self is StorageError && "\(self)" == "\(error)" }
  var isBusyStorage: Bool { if case .busy? = self as? StorageError { true } else { false } }
}
