import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@Suite("io.qmpvarlink.QMP on a real QEMU", .onEventLoop)
struct QMPServiceTests {
  private static let interface = "io.qmpvarlink.QMP"
  /// A machine of many kinds of devices, which stands still.
  private static let richMachine =
    ["run", "--machine", "test", "--accel", "tcg", "--", "-machine", "q35", "-S", "-m", "64M,slots=2,maxmem=256M", "-smp", "2"]
    + [
      "-object", "iothread,id=thread", "-object", "memory-backend-ram,id=more,size=64M", "-device", "pc-dimm,memdev=more",
      "-blockdev", "null-co,node-name=null,size=1048576", "-blockdev", "raw,node-name=disk,file=null",
      "-device", "virtio-scsi-pci,iothread=thread", "-device", "scsi-hd,drive=disk", "-netdev", "hubport,id=net,hubid=0",
      "-device", "virtio-net-pci,netdev=net", "-device", "virtio-balloon-pci", "-device", "qemu-xhci", "-device", "usb-tablet",
      "-chardev", "ringbuf,id=ring", "-device", "virtio-serial", "-device", "virtconsole,chardev=ring",
    ]

  @EventLoopActor
  private static func withService<Result: Sendable>(
    _ machine: [String] = bareMachine, _ body: @escaping @EventLoopActor (RunningDaemon) async throws -> Result
  ) async throws -> Result {
    try await withDaemon(machine) { daemon in
      #expect(try await daemon.call("org.varlink.service.GetInfo").contains(interface), "\(daemon.log)")
      return try await body(daemon)
    }.result
  }

  /// Calls a method of the interface.
  @EventLoopActor
  private static func call(_ daemon: RunningDaemon, _ method: String, _ parameters: String = "{}") async throws -> String {
    try await daemon.call("\(interface).\(method)", parameters)
  }

  private static func refused(_ command: String, _ reason: String) -> String {
    #"{"error":"\#(interface).Refused","parameters":{"command":"\#(command)","reason":"\#(reason)"}}"#
  }

  @Test("every command is a method that is bound, and every event a field") @EventLoopActor
  func complete() async throws {
    try await Self.withService { daemon in
      let connection = try daemon.connect()
      let reply = try await connection.call("\(Self.interface).Execute", #"{"command":"query-qmp-schema"}"#)
      let schema = try #require(JSONVariant(parsing: reply)["parameters"]?["return"]?.elements)
      let commands = schema.filter { $0["meta-type"]?.string == "command" }.compactMap { $0["name"]?.string }
      let events = schema.filter { $0["meta-type"]?.string == "event" }.compactMap { $0["name"]?.string }
      #expect(commands.count > 200 && events.count > 50)

      let introspected = try await command("varlinkctl", ["introspect", daemon.address, Self.interface])
      #expect(introspected.status == 0, "\(introspected.error)")
      let text = introspected.output
      let methods = text.split(separator: "\n").filter { $0.hasPrefix("method ") }.map { String($0.dropFirst(7).prefix { $0 != "(" }) }
      #expect(methods.count == commands.count + 2)
      for name in commands { #expect(text.contains("# In QEMU: \(name)\n"), "\(name)") }
      for name in events { #expect(text.contains("\t# In QEMU: \(name)\n"), "\(name)") }
      // Parameters are checked before a method runs, but only those of methods that are bound.
      for method in methods where method != "SubscribeEvents" {
        let reply = try await connection.call("\(Self.interface).\(method)", #"{"noSuchParameter":1}"#)
        #expect(reply.contains("org.varlink.service.InvalidParameter"), "\(method): \(reply)")
      }
      #expect(try await connection.call("\(Self.interface).SubscribeEvents") == #"{"error":"org.varlink.service.ExpectedMore"}"#)
      try await withTemporaryDirectory { folder in
        let file = folder.appending("interface.varlink")
        let validated = try await command("sh", ["-c", "cat >\(file); varlinkctl validate-idl \(file)"], input: text)
        #expect(validated.status == 0, "\(validated.error)")
      }
    }
  }

  @Test("the text in interfaces/generated is that of the QEMU at hand") @EventLoopActor
  func generated() async throws {
    let printed = try await command(productsDirectory.appending("qmp-varlinkd").string, ["interface"])
    #expect(printed.status == 0, "\(printed.error)")
    let root = FilePath(#filePath).removingLastComponent().removingLastComponent().removingLastComponent()
    let isSame = contents(of: root.appending("interfaces/generated/io.qmpvarlink.QMP.varlink")) == printed.output
    #expect(isSame, "interfaces/generated differs from what this QEMU can: run 'make generated', and look at the difference")
  }

  @Test("a command without arguments says over Varlink what it says over QMP, value by value") @EventLoopActor
  func values() async throws {
    try await Self.withService(Self.richMachine) { daemon in
      let result = try await python("qmp_values", [daemon.socket.string])
      #expect(result.status == 0, "\(result.error)")
      let lines = result.output.split(separator: "\n")
      let words = lines.last?.split(separator: " ").compactMap { Int($0) } ?? []
      #expect(lines.count == 1 && words.count == 4, "\(result.output)")
      guard words.count == 4 else { return }
      #expect(words[0] > 100 && words[1] > 60 && words[1] + words[2] + words[3] == words[0] && words[3] == 2, "\(result.output)")
      #expect(!daemon.log.contains("not of its type") && !daemon.log.contains("validation"), "\(daemon.log)")
    }
  }

  @Test("Python's varlink package parses it, and calls with it") @EventLoopActor
  func pythonVarlink() async throws {
    try await Self.withService { daemon in
      let result = try await python("varlink_qmp", [daemon.address])
      #expect(result.status == 0, "\(result.error)")
      let expected = [
        "running", "[True]", "none-machine", "test", "io.qmpvarlink.QMP.QMPError GenericError", "org.varlink.service.InvalidParameter size",
        "READY", "RESET False hostQmpSystemReset True",
      ]
      #expect(result.output.split(separator: "\n").map(String.init) == expected, "\(result.output)")
    }
  }

  @Test("commands that would break the service are refused with the reason, whichever way they come") @EventLoopActor
  func refusals() async throws {
    try await Self.withService { daemon in
      // With a session there is a spare control monitor too.
      let session = try await daemon.acquireQMP()
      try await session.wait(for: "QMP")
      let list = try await daemon.call("io.qmpvarlink.Monitors.List")
      let monitors = try #require(JSONVariant(parsing: list)["parameters"]?["monitors"]?.elements)
      let control = monitors.filter { $0["control"]?.boolean == true }.compactMap { $0["id"]?.string }
      #expect(control.contains("qv-control"))
      for id in control {
        let reason = "the machine is controlled by the monitor \(id)"
        for (method, name) in [("ObjectDel", "object-del"), ("ChardevRemove", "chardev-remove")] {
          #expect(try await Self.call(daemon, method, #"{"id":"\#(id)"}"#) == Self.refused(name, reason))
          let arguments = #"{"command":"\#(name)","arguments":{"id":"\#(id)"}}"#
          #expect(try await Self.call(daemon, "Execute", arguments) == Self.refused(name, reason))
        }
        let human = try await Self.call(daemon, "HumanMonitorCommand", #"{"commandLine":" object_del  \#(id)"}"#)
        #expect(human == Self.refused("human-monitor-command", reason))
      }
      #expect(try await Self.call(daemon, "QmpCapabilities").contains("\(Self.interface).Refused"))
      #expect(try await Self.call(daemon, "Execute", #"{"command":"qmp_capabilities"}"#).contains("\(Self.interface).Refused"))
      #expect(try await Self.call(daemon, "Closefd", #"{"fdname":"qv-1"}"#).contains("\(Self.interface).Refused"))
      let unknown = try await Self.call(daemon, "ObjectDel", #"{"id":"nope"}"#)
      #expect(unknown == #"{"error":"\#(Self.interface).QMPError","parameters":{"class":"GenericError","desc":"object 'nope' not found"}}"#)
    }
  }

  @Test("what a caller sends cannot break the conversation with QEMU") @EventLoopActor
  func hostileCallers() async throws {
    try await Self.withService { daemon in
      let connection = try daemon.connect()
      let method = "\(Self.interface).Execute"
      let injected = try await connection.call(method, #"{"command":"query-name\"}{\"execute\":\"quit"}"#)
      #expect(injected == #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"command"}}"#)
      let deep = String(repeating: #"{"a":"#, count: 1200) + "1" + String(repeating: "}", count: 1200)
      #expect(try await connection.call(method, #"{"command":"query-name","arguments":\#(deep)}"#).contains("nested deeper"))
      let long = String(repeating: "x", count: 300_000)
      #expect(
        try await connection.call(method, #"{"command":"query-name","arguments":{"a":"\#(long)"}}"#).contains(
          "would keep all others waiting"))
      #expect(try await connection.call(method, #"{"command":"query-name","arguments":{"a":1,"a":2}}"#).contains("QMPError"))
      let any = #"{"path":"/machine","property":"type","value":{"object":\#(deep)}}"#
      #expect(try await connection.call("\(Self.interface).QomSet", any).contains("nested deeper"))
      #expect(try await connection.call(method, #"{"command":"nope"}"#).contains("CommandNotFound"))
      #expect(try await connection.call(method, #"{"command":"query-name"}"#) == #"{"parameters":{"return":{"name":"test"}}}"#)
      #expect(!daemon.log.contains("validation"), "\(daemon.log)")
    }
  }

  @Test("descriptors that come with a call reach QEMU, and others are asked for") @EventLoopActor
  func descriptors() async throws {
    try await Self.withService { daemon in
      let image = daemon.directory.appending("image")
      try #require(await command("truncate", ["-s", "1M", image.string]).status == 0)
      let file = try FileDescriptor.open(image, .readWrite)
      defer { try? file.close() }
      let call = { @EventLoopActor (method: String, parameters: String) async throws -> String in
        let client = try daemon.connect()
        let message = #"{"method":"\#(Self.interface).\#(method)","parameters":\#(parameters)}"# + "\0"
        try await client.peer.write(Array(message.utf8), descriptors: [file.rawValue])
        return try await client.receive()
      }
      #expect(try await call("AddFd", #"{"fdsetId":7,"fileDescriptorIndex":0}"#).contains(#""fdsetId":7"#))
      let added = try await Self.call(daemon, "BlockdevAdd", #"{"driver":"file","nodeName":"passed","filename":"/dev/fdset/7"}"#)
      #expect(added == "{}")
      #expect(try await call("Getfd", #"{"fdname":"one","fileDescriptorIndex":0}"#) == "{}")
      #expect(try await Self.call(daemon, "Closefd", #"{"fdname":"one"}"#) == "{}")
      #expect(
        try await call("Execute", #"{"command":"getfd","arguments":{"fdname":"two"},"fileDescriptorIndex":0}"#)
          == #"{"parameters":{"return":{}}}"#)
      #expect(try await call("Getfd", #"{"fdname":"three","fileDescriptorIndex":1}"#).contains("ENXIO"))
      #expect(try await call("Getfd", #"{"fdname":"three"}"#).contains("No file descriptor supplied"))
    }
  }

  @Test("events have their types, are filtered by name, and the stream ends with the machine") @EventLoopActor
  func events() async throws {
    try await Self.withService { daemon in
      let all = try daemon.connect()
      let some = try daemon.connect()
      let method = "\(Self.interface).SubscribeEvents"
      let ready = #"{"parameters":{"event":"READY"},"continues":true}"#
      #expect(try await all.call(method, flags: #","more":true"#) == ready)
      #expect(try await some.call(method, #"{"filter":["RESUME","READY"]}"#, flags: #","more":true"#) == ready)
      let unknown = try await daemon.connect().call(method, #"{"filter":["NO_SUCH_EVENT"]}"#, flags: #","more":true"#)
      #expect(unknown == #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"filter"}}"#)
      for method in ["Stop", "Cont", "SystemReset"] { #expect(try await Self.call(daemon, method) == "{}") }
      let stop = try await all.receive()
      #expect(stop.hasPrefix(#"{"parameters":{"event":"STOP","timestamp":{"seconds":"#) && stop.contains(#","stop":{}}"#), "\(stop)")
      #expect(try await all.receive().contains(#""resume":{}"#))
      #expect(try await all.receive().contains(#""reset":{"guest":false,"reason":"hostQmpSystemReset"}"#))
      #expect(try await some.receive().contains(#""event":"RESUME""#))
      #expect(try await Self.call(daemon, "Quit") == "{}")
      #expect(try await all.receive().contains(#""shutdown":{"guest":false,"reason":"hostQmpQuit"}"#))
      try await all.peer.waitForEnd()
      try await some.peer.waitForEnd()
    }
  }

  @Test("commands that may are executed out of band, while QEMU is stuck in another") @EventLoopActor
  func outOfBand() async throws {
    // Being stuck is not to become not responding, however slow this machine is.
    let patient = ["run", "--machine", "test", "--accel", "tcg", "--response-limit", "600", "--", "-machine", "none"]
    try await Self.withService(patient) { daemon in
      let fifo = daemon.directory.appending("fifo")
      try #require(await command("mkfifo", [fifo.string]).status == 0)
      // The first makes the monitor for them, which a QEMU that is stuck cannot.
      #expect(try await Self.call(daemon, "QueryYank").contains(#"{"type":"chardev","id":"qv-control"}"#))
      let stuck = try daemon.connect()
      let node = #"{"driver":"file","nodeName":"blocked","filename":"\#(fifo)","readOnly":true}"#
      try await stuck.send("\(Self.interface).BlockdevAdd", node)
      let behind = try daemon.connect()
      try await behind.send("\(Self.interface).QueryName")
      for _ in 0..<3 { #expect(try await Self.call(daemon, "QueryYank").contains("qv-control")) }
      #expect(try await Self.call(daemon, "Execute", #"{"command":"query-yank","oob":true}"#).contains("qv-control"))
      #expect(try await Self.call(daemon, "MigratePause").contains("QMPError"))
      // What is not for that is refused by QEMU.
      #expect(try await Self.call(daemon, "Execute", #"{"command":"query-name","oob":true}"#).contains("does not support OOB"))
      // Those in band are answered once somebody has opened the other end.
      #expect(stuck.peer.received.isEmpty && behind.peer.received.isEmpty)
      let writer = try FileDescriptor.open(fifo, .writeOnly)
      defer { try? writer.close() }
      #expect(try await !stuck.receive().isEmpty)
      #expect(try await behind.receive() == #"{"parameters":{"name":"test"}}"#)
    }
  }

  @Test("a session that deletes the monitor for out-of-band commands does not take those away") @EventLoopActor
  func deletedOutOfBandMonitor() async throws {
    try await Self.withService(["run", "--machine", "test", "--accel", "tcg", "--response-limit", "1", "--", "-machine", "none"]) {
      daemon in
      #expect(try await Self.call(daemon, "QueryYank").contains("qv-1"))
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"}{"execute":"object-del","arguments":{"id":"qv-1"},"id":"del"}"#)
      try await session.wait(for: #""id": "del""#)
      #expect(try await Self.call(daemon, "QueryYank").contains("NotResponding"))
      while try await !Self.call(daemon, "QueryYank").contains("parameters\":{\"return\"") {}
    }
  }

  @Test("many callers at once get each their own") @EventLoopActor
  func manyCallers() async throws {
    try await Self.withService { daemon in
      let callers = try (0..<64).map { _ in try daemon.connect() }
      for round in 0..<10 {
        for (number, caller) in callers.enumerated() {
          let backend = #"{"type":"null","dataNull":{}}"#
          try await caller.send("\(Self.interface).ChardevAdd", #"{"id":"c-\#(number)-\#(round)","backend":\#(backend)}"#)
          try await caller.send("\(Self.interface).ChardevRemove", #"{"id":"x-\#(number)-\#(round)"}"#)
          try await caller.send("\(Self.interface).ChardevRemove", #"{"id":"c-\#(number)-\#(round)"}"#)
        }
        for (number, caller) in callers.enumerated() {
          #expect(try await caller.receive() == "{}")
          #expect(try await caller.receive().contains("'x-\(number)-\(round)'"))
          #expect(try await caller.receive() == "{}")
        }
      }
    }
  }
}
