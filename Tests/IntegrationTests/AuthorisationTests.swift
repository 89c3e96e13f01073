import Foundation
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// Who may do what, tried by users of their own: the test is run by root, and becomes them.
@Suite("every method for every caller", .onEventLoop, .serialized) struct AuthorisationTests {
  /// What is tried, by what it needs; written down once more, not taken from the daemon.
  private static let calls: KeyValuePairs<String, [(method: String, parameters: String)]> = [
    "observe": [
      ("io.systemd.MachineInstance.Describe", "{}"), ("io.systemd.MachineInstance.SubscribeEvents", "{}"),
      ("io.qmpvarlink.Sessions.List", "{}"), ("io.qmpvarlink.Sessions.Watch", "{}"), ("io.qmpvarlink.Monitors.List", "{}"),
      ("io.qmpvarlink.Monitors.Watch", "{}"), ("io.qmpvarlink.QMP.SubscribeEvents", "{}"),
    ],
    "control": [
      ("io.systemd.MachineInstance.Pause", "{}"), ("io.systemd.MachineInstance.Resume", "{}"),
      ("io.systemd.MachineInstance.Reboot", "{}"), ("io.systemd.MachineInstance.PowerOff", "{}"),
    ],
    "storage": [
      ("io.systemd.MachineInstance.AddStorage", #"{"fileDescriptorIndex": 0, "name": "a"}"#),
      ("io.systemd.MachineInstance.RemoveStorage", #"{"name": "a"}"#),
      ("io.systemd.MachineInstance.ReplaceStorage", #"{"fileDescriptorIndex": 0, "name": "a"}"#),
    ],
    "monitors": [
      ("io.qmpvarlink.Monitors.Add", #"{"id": "m"}"#), ("io.qmpvarlink.Monitors.Remove", #"{"id": "m"}"#),
      ("io.qmpvarlink.Sessions.Close", #"{"id": "none"}"#),
    ],
    "query": [
      ("io.systemd.QemuMachineInstance.AcquireQMP", #"{"access": "query"}"#), ("io.qmpvarlink.QMP.QueryName", "{}"),
      ("io.qmpvarlink.QMP.Execute", #"{"command": "query-status"}"#),
    ],
    "full": [
      ("io.systemd.QemuMachineInstance.AcquireQMP", "{}"), ("io.systemd.QemuMachineInstance.AcquireQMP", #"{"access": "full"}"#),
      ("io.qmpvarlink.QMP.Stop", "{}"), ("io.qmpvarlink.QMP.Execute", #"{"command": "stop"}"#),
      ("io.qmpvarlink.QMP.QomGet", #"{"path": "/machine", "property": "type"}"#),
    ],
    // After which there is nothing to try.
    "control": [("io.systemd.MachineInstance.Terminate", "{}")],
  ]

  /// A caller: who it is, and the classes that it has.
  private struct Caller {
    let name: String
    let user: Int
    var groups: [Int] = []
    let classes: Set<String>
  }
  private static let owner = 61001
  private static let everything: Set = ["observe", "control", "storage", "monitors", "query", "full"]
  private static let callers = [
    Caller(name: "a stranger", user: 61002, classes: []),
    Caller(name: "a stranger whose group has the number of a user", user: 61002, groups: [61003, 61001, 0], classes: []),
    Caller(name: "a user with observe", user: 61003, classes: ["observe"]),
    Caller(name: "a user with storage", user: 61005, classes: ["storage"]),
    Caller(name: "a user with monitors", user: 61006, classes: ["monitors"]),
    Caller(name: "a user with query", user: 61007, classes: ["observe", "query"]),
    Caller(
      name: "a member of a group with query and storage", user: 61009, groups: [62000, 62001], classes: ["observe", "query", "storage"]),
    Caller(name: "a user with control", user: 61004, classes: ["control"]),
    Caller(name: "a user with full", user: 61008, classes: everything),
    Caller(name: "the owner", user: owner, classes: everything),
    Caller(name: "root", user: 0, classes: everything),
  ]
  private static let policy = """
    observe user:61003
    control user:61004
    storage user:61005 group:62001
    monitors user:61006
    query user:61007 group:62001
    full user:61008
    """

  @Test("the matrix") @EventLoopActor
  func matrix() async throws {
    // Who may end the machine has one that nobody else needs.
    let (mortal, immortal) = (
      Self.callers.filter { $0.classes.contains("control") }, Self.callers.filter { !$0.classes.contains("control") }
    )
    try await Self.withServer { daemon in for caller in immortal { try await Self.check(caller, daemon) } }
    for caller in mortal { try await Self.withServer { daemon in try await Self.check(caller, daemon) } }
  }

  @Test("without a policy nobody else can even connect; and every refusal is logged") @EventLoopActor
  func unconfigured() async throws {
    try await Self.withServer(policy: "") { daemon in
      let describe = #"{"method": "io.systemd.MachineInstance.Describe"}"#
      let stranger = try await daemon.outcomes(of: [describe], as: 61002)
      #expect(stranger == ["no connection"])
      let root = try await daemon.outcomes(of: [describe], as: 0)
      #expect(root == ["ok"])
      let owner = try await daemon.outcomes(of: [describe], as: Self.owner)
      #expect(owner == ["ok"])
    }
    try await Self.withServer { daemon in
      let pause = #"{"method": "io.systemd.MachineInstance.Pause"}"#
      let observer = try await daemon.outcomes(of: [pause], as: 61003)
      #expect(observer == ["org.varlink.service.PermissionDenied"])
      let log = daemon.log
      let line = try #require(log.split(separator: "\n").first { $0.contains("refused") })
      #expect(line.contains("class=control") && line.contains("method=io.systemd.MachineInstance.Pause") && line.contains("uid=61003"))
    }
  }

  @Test("a policy that is wrong is told with its line, and nothing is served") @EventLoopActor
  func wrongPolicy() async throws {
    let folder = try TemporaryFolder()
    let file = try folder.file("policy", Array("observe user:0\nfull user:nobody-of-that-name\n".utf8))
    let daemon = productsDirectory.appending("qmp-varlinkd").string
    let result = try await command(
      daemon,
      ["run", "--machine", "m", "--runtime-directory", folder.path.string, "--policy", file.string, "--register=no"])
    #expect(result.status == 70)
    #expect(result.error.contains("\(file), line 2: there is no user 'nobody-of-that-name'"))
    #expect(!FilePath.exists(folder.path.appending("control")))
  }

  @Test("the commands of a full session are logged if that is asked for, without secrets and however they are written") @EventLoopActor
  func audit() async throws {
    let arguments = ["run", "--machine", "m", "--accel=tcg", "--audit", "--", "-machine", "none"]
    _ = try await withDaemon(arguments) { daemon in
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute":"qmp_capabilities"} { 'exe\u0063ute' : 'query-status' } ] "#)
      try await session.write(#"{"execute":"object-add","arguments":{"qom-type":"secret","id":"s","data":"geheim"}}{"exec-oob":"x"}"#)
      session.endWriting()
      try await session.waitForEnd()
      let log = daemon.log
      #expect(log.contains(#"command="qmp_capabilities""#) && log.contains(#"command="query-status""#))
      #expect(log.contains(#"command="object-add""#) && log.contains(#""data": "***""#) && !log.contains("geheim"))
      #expect(log.contains("input that is no command") && log.contains(#"command="x""#) && log.contains("oob=yes"))
    }
  }

  // MARK: callers

  @EventLoopActor
  private static func check(_ caller: Caller, _ daemon: RunningDaemon) async throws {
    for (privilege, calls) in Self.calls {
      // What is asked for as a stream or an upgrade is so by these callers, and refused as any other call is.
      let lines = calls.map { #"{"method": "\#($0.method)", "parameters": \#($0.parameters)\#(flags($0.method))}"# }
      let outcomes = try await daemon.outcomes(of: lines, as: caller.user, caller.groups)
      #expect(outcomes.count == calls.count)
      for (call, outcome) in zip(calls, outcomes) {
        let isRefused = outcome == "org.varlink.service.PermissionDenied"
        #expect(outcome != "closed" && outcome != "no connection" && !outcome.contains("MethodNotFound"), "\(call.method): \(outcome)")
        #expect(isRefused != caller.classes.contains(privilege), "\(caller.name), \(call.method) \(call.parameters): \(outcome)")
      }
    }
  }

  private static func flags(_ method: String) -> String {
    if method.hasSuffix("SubscribeEvents") || method.hasSuffix("Watch") { return #", "more": true"# }
    return method.hasSuffix("AcquireQMP") ? #", "upgrade": true"# : ""
  }

  /// Runs a daemon as its owner, in a folder that everybody can look into.
  @EventLoopActor
  private static func withServer(policy text: String = policy, _ body: @escaping @EventLoopActor (RunningDaemon) async throws -> Void)
    async throws
  {
    let folder = try TemporaryFolder()
    let file = try folder.file("policy", Array(text.utf8))
    let directory = folder.path.appending("run")
    for arguments in [["chmod", "755", folder.path.string], ["install", "-d", "-o", "\(owner)", directory.string]] {
      let made = try await command(arguments[0], Array(arguments.dropFirst()))
      guard made.status == 0 else { throw RunningDaemon.Failure(made.error) }
    }
    let launcher = ["setpriv", "--reuid=\(owner)", "--regid=\(owner)", "--clear-groups"]
    _ = try await withDaemon(
      ["run", "--machine", "m", "--accel=tcg", "--policy", file.string, "--", "-machine", "none"], directory: directory, launcher: launcher,
      body)
  }
}
