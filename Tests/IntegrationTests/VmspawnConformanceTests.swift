import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// The same script against systemd-vmspawn and against us, compared message by message.
@Suite("io.systemd.MachineInstance as systemd-vmspawn has it", .onEventLoop, .serialized)
struct VmspawnConformanceTests {
  @Test("every method, every fault of a call, storage, and a guest that is paused, resumed and powered off") @EventLoopActor
  func bootedGuest() async throws {
    let (theirs, ours) = try await Subject.both { subject in
      try await subject.boot()
      let subscriber = try await subject.subscribe()
      try await Self.plainCalls(subject)
      for verb in ["Pause", "Pause", "Resume", "Resume"] { try await subject.call(verb, verb) }
      await subject.events("paused and resumed", subscriber, 2)
      try await Self.faults(subject)
      try await Self.additions(subject)
      try await Self.replacements(subject)
      try await Self.removals(subject, subscriber)
      try await Self.pending(subject, subscriber)
      try await subject.call("PowerOff", "PowerOff")
      await subject.events("powered off", subscriber, 3)
    }
    Self.compare(theirs, ours)
  }

  @Test("Reboot, then Terminate") @EventLoopActor
  func terminated() async throws {
    let (theirs, ours) = try await Subject.both { subject in
      let all = try await subject.subscribe()
      let others = try await [#"{"filter":["RESET"]}"#, #"{"filter":[]}"#, #"{"filter":null}"#, #"{"filter":["NOPE"]}"#]
        .asyncMap { try await subject.subscribe($0) }
      try await subject.call("Reboot", "Reboot")
      await subject.events("rebooted", all, 1)
      try await subject.call("Terminate", "Terminate")
      await subject.events("terminated", all, 2)
      for (other, count) in zip(others, [2, 3, 3, 1]) { await subject.events("filtered", other, count) }
    }
    Self.compare(theirs, ours)
  }

  @Test("QEMU killed: calls under way fail, subscribers are told, connections end") @EventLoopActor
  func backendGone() async throws {
    let (theirs, ours) = try await Subject.both { subject in
      let all = try await subject.subscribe()
      let filtered = try await subject.subscribe(#"{"filter":["STOP"]}"#)
      let idle = try subject.connect()
      try await idle.send("org.varlink.service.GetInfo")
      _ = await subject.receive(idle)
      kill(subject.qemu, SIGSTOP)
      let waiting = try subject.connect()
      try await waiting.send("io.systemd.MachineInstance.Describe")
      try await Self.processed(subject)
      kill(subject.qemu, SIGKILL)
      subject.note("pending Describe", await subject.receive(waiting))
      subject.note("after that", await subject.receive(waiting))
      await subject.events("killed", all, 2)
      await subject.events("killed, filtered", filtered, 1)
      subject.note("idle connection", await subject.receive(idle))
    }
    Self.compare(theirs, ours)
  }

  // MARK: the script

  @EventLoopActor
  private static func plainCalls(_ subject: Subject) async throws {
    try await subject.call("Describe", "Describe")
    try await subject.call("Describe, unknown parameter", "Describe", #"{"bogus":1}"#)
    try await subject.call("Describe, more", "Describe", flags: #","more":true"#)
    try await subject.call("Describe, upgrade", "Describe", flags: #","upgrade":true"#)
    try await subject.call("unknown method", "Nope")
    try await subject.call("unknown interface", "io.systemd.Nope.Foo")
    try await subject.call(
      "unknown interface's description", "org.varlink.service.GetInterfaceDescription", #"{"interface":"io.systemd.Nope"}"#)
    try await subject.call("SubscribeEvents, not more", "SubscribeEvents")
    for filter in [#""STOP""#, "[1]", #"["STOP",1]"#, "{}"] {
      try await subject.call("SubscribeEvents, filter \(filter)", "SubscribeEvents", #"{"filter":\#(filter)}"#, flags: #","more":true"#)
    }
    for raw in ["nonsense", "[]", "{}", #"{"method":1}"#, #"{"method":"a.b.C","parameters":[]}"#, #"{"method":"a.b.C","bogus":1}"#, ""] {
      let connection = try subject.connect()
      try await connection.peer.write(Array(raw.utf8) + [0])
      subject.note("raw \(raw)", await subject.receive(connection))
    }
    let oneway = try subject.connect()
    try await oneway.send("io.systemd.MachineInstance.Resume", flags: #","oneway":true"#)
    try await oneway.send("io.systemd.MachineInstance.Describe")
    subject.note("oneway, then Describe", await subject.receive(oneway))
    for interface in ["MachineInstance", "VirtualMachineInstance"] {
      let reply = try await subject.connect().call(
        "org.varlink.service.GetInterfaceDescription", #"{"interface":"io.systemd.\#(interface)"}"#)
      let symbols = reply.matches(of: /\\n(method|error) ([A-Za-z]+)/).map { "\($0.1) \($0.2)" }.sorted()
      subject.note("\(interface)'s methods and errors", symbols.joined(separator: ", "))
    }
  }

  /// Calls that are wrong in themselves; nothing of QEMU's is asked.
  @EventLoopActor
  private static func faults(_ subject: Subject) async throws {
    for parameters in [
      "{}", #"{"name":"x"}"#, #"{"fileDescriptorIndex":0}"#, #"{"fileDescriptorIndex":0,"name":3}"#,
      #"{"fileDescriptorIndex":0,"name":null}"#,
      #"{"fileDescriptorIndex":0,"name":"x","config":3}"#, #"{"fileDescriptorIndex":0,"name":"x","bogus":3}"#,
      #"{"fileDescriptorIndex":0,"name":""}"#, #"{"fileDescriptorIndex":-1,"name":""}"#, #"{"fileDescriptorIndex":0,"name":"nope"}"#,
      #"{"fileDescriptorIndex":0,"name":"\#(subject.bootDrive)"}"#, #"{"fileDescriptorIndex":0,"name":"x","config":"nonsense"}"#,
    ] {
      let shown = parameters.replacing(subject.bootDrive, with: "BOOT")
      for method in ["AddStorage", "RemoveStorage", "ReplaceStorage"] { try await subject.call("\(method) \(shown)", method, parameters) }
      try await subject.call("ReplaceStorage \(shown), with descriptor", "ReplaceStorage", parameters, subject.file("spare"))
    }
    for name in ["", "nope", subject.bootDrive] {
      try await subject.call("remove \(name == subject.bootDrive ? "BOOT" : name)", "RemoveStorage", #"{"name":"\#(name)"}"#)
    }
    for index in ["-1", "1", "5", "1.5", "null", "true", "2147483648", "9223372036854775808", #""0""#] {
      try await add(subject, "add, index \(index)", "indexed", index: index, subject.file("indexed"))
    }
    for (kind, descriptor) in try unsuitable(subject) {
      try await add(subject, "add, \(kind)", "unsuitable", dup(descriptor))
      try await add(subject, "add, \(kind), bad config", "unsuitable", config: #""nonsense""#, dup(descriptor))
      for name in ["nope", subject.bootDrive] {
        let shown = name == subject.bootDrive ? "BOOT" : name
        try await replace(subject, "replace \(shown), \(kind)", name, dup(descriptor))
      }
      close(descriptor)
    }
    for config in [#""ide""#, #""scsi-hd""#, #""virtio-scsi-cd""#, #""nonsense""#, #""VIRTIO-BLK""#] {
      try await add(subject, "add, config \(config)", "config", config: config, subject.file("spare"))
      try await add(subject, "add, config \(config), no descriptor", "config", config: config, nil)
    }
    try await add(subject, "add, no descriptor", "none", nil)
    try await add(subject, "add, name of the boot drive", subject.bootDrive, subject.file("spare"))
  }

  /// Descriptors of what is no disk.
  @EventLoopActor
  private static func unsuitable(_ subject: Subject) throws -> [(String, CInt)] {
    let pipe = try pipePair()
    let sockets = try socketPair()
    close(pipe.writing)
    close(sockets.theirs)
    let pathOnly: CInt = 0o10_000_000
    close(subject.file("unsuitable"))
    return [
      ("a pipe", pipe.reading), ("a socket", sockets.ours), ("a character device", open("/dev/null", O_RDWR)),
      ("a folder", open(subject.folder.string, O_RDONLY)), ("O_PATH", subject.file("unsuitable", pathOnly)),
      ("O_PATH of a folder", open(subject.folder.string, pathOnly)), ("O_WRONLY", subject.file("unsuitable", O_WRONLY)),
    ]
  }

  @EventLoopActor
  private static func additions(_ subject: Subject) async throws {
    for config in [nil, "null", #""""#, #""virtio-blk""#, #""nvme""#, #""virtio-scsi""#] {
      let shown = config ?? "absent"
      let name = "of \(shown.filter { $0 != "\"" })"
      try await add(subject, "add, config \(shown)", name, config: config, subject.file(name))
    }
    try await add(subject, "add, descriptor for both, scsi-cd", "cd for both", config: #""scsi-cd""#, subject.file("cd for both"))
    try await add(subject, "add, read-only descriptor, scsi-cd", "cd", config: #""scsi-cd""#, subject.file("cd", O_RDONLY))
    try await add(subject, "add, read-only descriptor", "read-only", subject.file("read-only", O_RDONLY))
    try await add(subject, "add virtio-blk, read-only descriptor", "rb", config: #""virtio-blk""#, subject.file("rb", O_RDONLY))
    try await add(subject, "add, descriptor that appends", "appending", subject.file("appending", O_RDWR | O_APPEND))
    try await add(subject, "add, empty file", "empty", subject.file("empty", size: 0))
    try await add(subject, "add, odd file", "odd", subject.file("odd", size: 1000))
    try await add(subject, "add, strange name", #"a \"b\" \n \\ ü/../"#, subject.file("strange"))
    try await add(subject, "add, upgrade", "upgrade", flags: #","upgrade":true"#, subject.file("upgrade"))
    try await add(subject, "add, more", "more", flags: #","more":true"#, subject.file("more"))
    try await add(subject, "add, same name", "read-only", subject.file("spare"))
    try await add(subject, "add, same name, bad config", "read-only", config: #""nonsense""#, subject.file("spare"))
    try await add(subject, "add, same name, no descriptor", "read-only", nil)
    try await add(subject, "add, file in use", "in use", subject.file("odd"))
  }

  @EventLoopActor
  private static func replacements(_ subject: Subject) async throws {
    try await replace(subject, "replace by a larger file", "more", subject.file("larger", size: 2 << 20))
    try await replace(subject, "replace by a smaller file", "more", subject.file("smaller", size: 512))
    try await replace(subject, "replace by an odd file", "more", subject.file("odder", size: 1001))
    try await replace(subject, "replace by an empty file", "more", subject.file("emptier", size: 0))
    try await replace(subject, "replace by itself", "more", subject.file("emptier"))
    try await replace(subject, "replace by a file in use", "more", subject.file("odd"))
    try await replace(subject, "replace by a read-only file", "more", subject.file("spare", O_RDONLY))
    for (kind, descriptor) in try unsuitable(subject) { try await replace(subject, "replace by \(kind)", "more", descriptor) }
    try await replace(subject, "replace read-only drive by a read-only file", "read-only", subject.file("ro1", O_RDONLY))
    try await replace(subject, "replace read-only drive by a file for both", "read-only", subject.file("ro2"))
    try await replace(subject, "replace read-only drive by a read-only file, again", "read-only", subject.file("ro3", O_RDONLY))
    try await replace(subject, "replace CD", "cd", subject.file("cd2", O_RDONLY))
    try await replace(subject, "replace CD, descriptor for both", "cd", subject.file("cd3"))
  }

  @EventLoopActor
  private static func removals(_ subject: Subject, _ subscriber: VarlinkPeer) async throws {
    for name in ["more", "read-only", "cd", "empty", #"a \"b\" \n \\ ü/../"#] {
      try await subject.call("remove \(name)", "RemoveStorage", #"{"name":"\#(name)"}"#)
      await subject.events("removed \(name)", subscriber, 1)
      try await subject.call("remove \(name) again", "RemoveStorage", #"{"name":"\#(name)"}"#)
    }
    try await add(subject, "add what was removed", "more", subject.file("more"))
    try await subject.call("Pause", "Pause")
    await subject.events("paused", subscriber, 1)
    try await subject.call("remove while paused", "RemoveStorage", #"{"name":"more"}"#)
    await subject.events("removed while paused", subscriber, 1)
    try await subject.call("Resume", "Resume")
    await subject.events("resumed", subscriber, 1)
  }

  /// What is refused while another operation on the drive is under way: QEMU is stopped, so that it stays so.
  @EventLoopActor
  private static func pending(_ subject: Subject, _ subscriber: VarlinkPeer) async throws {
    for name in ["removed", "replaced"] { try await add(subject, "add \(name)", name, subject.file(name)) }
    let operations: [(String, String, CInt?)] = [
      ("RemoveStorage", "removed", nil), ("ReplaceStorage", "replaced", subject.file("replacing")),
      ("AddStorage", "added", subject.file("adding")),
    ]
    for (method, name, descriptor) in operations {
      kill(subject.qemu, SIGSTOP)
      let first = try subject.connect()
      let parameters = #""name":"\#(name)""# + (method == "AddStorage" ? #","config":"virtio-scsi""# : "")
      let index = descriptor == nil ? "" : #","fileDescriptorIndex":0"#
      try await first.send(
        "io.systemd.MachineInstance.\(method)", "{\(parameters)\(index)}", descriptors: descriptor.map { [$0] } ?? [])
      try await processed(subject)
      try await subject.call("remove, being \(name)", "RemoveStorage", #"{"name":"\#(name)"}"#)
      try await replace(subject, "replace, being \(name)", name, subject.file("other"))
      try await replace(subject, "replace by a read-only file, being \(name)", name, subject.file("other", O_RDONLY))
      try await add(subject, "add, being \(name)", name, subject.file("other"))
      kill(subject.qemu, SIGCONT)
      subject.note("\(method), at last", await subject.receive(first))
      if let descriptor { close(descriptor) }
      if name == "removed" { await subject.events("removed at last", subscriber, 1) }
    }
  }

  // MARK: its parts

  @EventLoopActor
  private static func add(
    _ subject: Subject, _ step: String, _ name: String, config: String? = #""virtio-scsi""#, index: String = "0", flags: String = "",
    _ descriptor: CInt?
  ) async throws {
    let config = config.map { #","config":\#($0)"# } ?? ""
    try await subject.call(
      step, "AddStorage", #"{"fileDescriptorIndex":\#(index),"name":"\#(name)"\#(config)}"#, flags: flags, descriptor)
  }

  @EventLoopActor
  private static func replace(_ subject: Subject, _ step: String, _ name: String, _ descriptor: CInt?) async throws {
    try await subject.call(step, "ReplaceStorage", #"{"fileDescriptorIndex":0,"name":"\#(name)"}"#, descriptor)
  }

  /// Returns when what was sent on other connections before has been looked at: calls are taken in the order of their coming.
  @EventLoopActor
  private static func processed(_ subject: Subject) async throws {
    for _ in 0..<2 { _ = try await subject.connect().call("org.varlink.service.GetInfo") }
  }

  @EventLoopActor
  private static func compare(
    _ theirs: [(step: String, result: String)], _ ours: [(step: String, result: String)]
  ) {
    #expect(theirs.map(\.step) == ours.map(\.step))
    let tried = Set(theirs.map(\.step))
    var unseen = Dictionary(grouping: VmspawnDifferences.table.filter { tried.contains($0.step) }, by: \.step)
    for (their, our) in zip(theirs, ours) {
      let (reference, own) = (VmspawnDifferences.withoutAdditions(their.result), VmspawnDifferences.withoutAdditions(our.result))
      if reference == own { continue }
      if let listed = unseen.removeValue(forKey: their.step)?.first, listed.theirs == reference, listed.ours == own { continue }
      if VmspawnDifferences.isLastEventLost(theirs: reference, ours: own) { continue }
      Issue.record("\(their.step):\nvmspawn \(their.result)\nours    \(our.result)")
    }
    for step in unseen.filter({ !$0.value.contains { $0.isMatterOfTiming } }).keys {
      Issue.record("listed as different, and is not: \(step)")
    }
    print("\(theirs.count) replies and events compared")
  }
}

extension Array {
  @EventLoopActor
  fileprivate func asyncMap<Result>(_ transform: @EventLoopActor (Element) async throws -> Result) async rethrows -> [Result] {
    var results: [Result] = []
    for element in self { results.append(try await transform(element)) }
    return results
  }
}
