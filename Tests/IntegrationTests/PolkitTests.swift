import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// The callers are users of this system, as polkit's rules need them to be.
private enum User {
  static let games = 5
  static let lp = 7
  static let mail = 8
  static let news = 9
  static let proxy = 13
}

private func call(_ method: String, _ parameters: String = "{}", _ flags: String = "") -> String {
  #"{"method": "\#(method)", "parameters": \#(parameters)\#(flags)}"#
}
private let describe = call("io.systemd.MachineInstance.Describe")
private let pause = call("io.systemd.MachineInstance.Pause")
private let list = call("io.qmpvarlink.Sessions.List")
private let denied = "org.varlink.service.PermissionDenied"
private let challenged = "io.systemd.InteractiveAuthenticationRequired"

@Suite("what the policy does not grant is polkit's to say", .onEventLoop, .serialized)
struct PolkitTests {
  @Test("it is told who calls, of which machine and what; it permits by class, and both is logged") @EventLoopActor
  func classes() async throws {
    try await Self.withDaemonAndPolkit { daemon, authority, _ in
      authority.verdict = { $0.action == "io.qmpvarlink.observe" || $0.action == "io.qmpvarlink.full" ? .authorised : .no }
      let upgrade = call("io.systemd.QemuMachineInstance.AcquireQMP", "{}", #", "upgrade": true"#)
      let events = call("io.systemd.MachineInstance.SubscribeEvents", "{}", #", "more": true"#)
      let query = call("io.systemd.QemuMachineInstance.AcquireQMP", #"{"access": "query"}"#, #", "upgrade": true"#)
      let nobodys = call("io.systemd.MachineInstance.Nope")
      let outcomes = try await daemon.outcomes(of: [describe, pause, upgrade, events, query, nobodys], as: User.games)
      #expect(outcomes == ["ok", denied, "ok", "ok", denied, "org.varlink.service.MethodNotFound"])
      let classes = ["observe", "control", "full", "observe", "query"]
      #expect(authority.questions.map(\.action) == classes.map { "io.qmpvarlink.\($0)" })
      let question = try #require(authority.questions.first)
      #expect(question.details == ["machine": "m", "method": "io.systemd.MachineInstance.Describe"])
      #expect(question.subject == "unix-process" && Set(question.facts.keys) == ["pidfd", "pid", "start-time", "uid"])
      #expect(question.facts["uid"] == UInt64(User.games) && question.facts["pid"] == UInt64(question.process))
      #expect(!question.mayInteract && !question.cancellation.isEmpty)
      #expect(Set(authority.questions.map(\.cancellation)).count == authority.questions.count)
      let lines = daemon.log.split(separator: "\n")
      let permitted = try #require(lines.first { $0.contains("permitted") })
      let refused = try #require(lines.first { $0.contains("refused") })
      #expect(permitted.contains("class=observe") && permitted.contains("by=polkit") && permitted.contains("uid=\(User.games)"))
      #expect(refused.contains("class=control") && refused.contains("by=polkit") && refused.contains("uid=\(User.games)"))
      #expect(authority.cancelled.isEmpty)
    }
  }

  @Test("the owner, root and those whom the policy grants it are not asked about") @EventLoopActor
  func granted() async throws {
    let owner = User.lp
    try await Self.withDaemonAndPolkit(policy: "control user:\(User.mail)", owner: owner) { daemon, authority, _ in
      for (user, calls) in [(owner, [describe, pause]), (0, [describe, pause]), (User.mail, [pause])] {
        let outcomes = try await daemon.outcomes(of: calls, as: user)
        #expect(outcomes == calls.map { _ in "ok" })
      }
      #expect(authority.questions.isEmpty)
      // What it grants is not all.
      let further = try await daemon.outcomes(of: [describe], as: User.mail)
      #expect(further == [denied])
      #expect(authority.questions.map(\.action) == ["io.qmpvarlink.observe"])
    }
  }

  @Test("whoever has to authenticate is told so, and may be asked only if the call says so") @EventLoopActor
  func challenge() async throws {
    try await Self.withDaemonAndPolkit { daemon, authority, _ in
      authority.verdict = { $0.mayInteract ? .authorised : .challenge }
      let flag = { (value: String) in #"{"allowInteractiveAuthentication": \#(value)}"# }
      let calls = [
        list, call("io.qmpvarlink.Sessions.List", flag("false")), call("io.qmpvarlink.Sessions.List", flag("null")),
        call("io.qmpvarlink.Sessions.List", flag("true")), call("io.qmpvarlink.Monitors.Watch", flag("true"), #", "more": true"#),
        call("io.systemd.QemuMachineInstance.AcquireQMP", flag("true"), #", "upgrade": true"#),
        call("io.qmpvarlink.QMP.Execute", #"{"command": "query-name", "allowInteractiveAuthentication": true}"#),
      ]
      let outcomes = try await daemon.outcomes(of: calls, as: User.games)
      #expect(outcomes == [challenged, challenged, challenged, "ok", "ok", "ok", "ok"])
      #expect(authority.questions.map(\.mayInteract) == [false, false, false, true, true, true, true])
      // What is no boolean is an error whoever calls; and systemd-vmspawn's interface has no such parameter.
      let wrong = [call("io.qmpvarlink.Sessions.List", flag("1")), call("io.systemd.MachineInstance.Describe", flag("true"))]
      let invalid = "org.varlink.service.InvalidParameter"
      #expect(try await daemon.outcomes(of: wrong, as: User.games) == [invalid, invalid])
      #expect(authority.questions.count == 7)
    }
  }

  @Test("a question is taken back when its caller goes, and another's call does not wait for it") @EventLoopActor
  func callerGone() async throws {
    try await Self.withDaemonAndPolkit { daemon, authority, _ in
      authority.verdict = { $0.facts["uid"] == UInt64(User.games) ? .later : .authorised }
      let ended = Promise<Void>()
      startTask {
        _ = try? await daemon.outcomes(of: [describe], as: User.games)
        ended.fulfil()
      }
      try await authority.wait("a question") { $0.questions.count == 1 }
      #expect(try await daemon.outcomes(of: [describe], as: User.mail) == ["ok"])
      #expect(try await daemon.outcomes(of: [describe], as: 0) == ["ok"])
      #expect(authority.cancelled.isEmpty)
      kill(authority.questions[0].process, SIGKILL)
      try await ended.soon("the caller's end")
      try await authority.wait("a cancellation") { !$0.cancelled.isEmpty }
      #expect(authority.cancelled == [authority.questions[0].cancellation])
      // An answer that comes nevertheless is nobody's.
      try authority.release(.authorised)
      #expect(try await daemon.outcomes(of: [describe], as: User.mail) == ["ok"])
      #expect(daemon.log.contains("the caller has gone"))
    }
  }

  @Test("of one user there are eight questions at once; others' are asked") @EventLoopActor
  func flood() async throws {
    try await Self.withDaemonAndPolkit { daemon, authority, _ in
      authority.verdict = { $0.facts["uid"] == UInt64(User.games) ? .later : .authorised }
      let outcomes = Outcomes()
      for _ in 0..<8 {
        startTask { outcomes.add((try? await daemon.outcomes(of: [describe], as: User.games)) ?? []) }
      }
      try await authority.wait("eight questions") { $0.questions.count == 8 }
      #expect(try await daemon.outcomes(of: [describe, pause], as: User.games) == [denied, denied])
      #expect(daemon.log.contains("8 questions about the user are under way"))
      #expect(try await daemon.outcomes(of: [describe], as: User.mail) == ["ok"])
      #expect(authority.questions.count == 9)
      authority.verdict = { _ in .authorised }
      try authority.release(.authorised)
      try await outcomes.eight.soon("eight outcomes")
      #expect(outcomes.all == Array(repeating: "ok", count: 8))
      // And there is room again.
      #expect(try await daemon.outcomes(of: [describe], as: User.games) == ["ok"])
    }
  }

  @Test("without a bus, or without polkit on it, the policy alone decides, which is logged once; polkit may come and go") @EventLoopActor
  func absent() async throws {
    let script = try Self.script()
    try await withTemporaryDirectory { folder in
      try await Self.withDaemonAsking(folder, policy: "observe user:\(User.mail)", owner: 0) { daemon in
        let complaint = "polkit cannot be asked: the policy alone decides"
        @EventLoopActor func complaints() -> [Substring] { daemon.log.split(separator: "\n").filter { $0.contains(complaint) } }
        let outcomes = try await known { try await daemon.outcomes(of: [describe, pause], as: User.games) }
        #expect(outcomes == [denied, denied])
        #expect(try await daemon.outcomes(of: [describe, pause], as: User.mail) == ["ok", denied])
        #expect(complaints().count == 1 && complaints()[0].contains("No such file or directory"))
        try await withBus(script, in: folder) { address in
          #expect(try await daemon.outcomes(of: [describe], as: User.games) == [denied])
          #expect(complaints().count == 1)
          let authority = try PolkitAuthority(at: address)
          authority.verdict = { _ in .authorised }
          #expect(try await daemon.outcomes(of: [describe], as: User.games) == ["ok"])
          authority.verdict = { _ in .error("org.freedesktop.PolicyKit1.Error.Failed") }
          #expect(try await daemon.outcomes(of: [describe], as: User.games) == [denied])
          #expect(complaints().count == 1)
          // It ends with a question under way.
          authority.verdict = { _ in .later }
          let outcome = Outcomes()
          startTask { outcome.add((try? await daemon.outcomes(of: [describe], as: User.games)) ?? []) }
          try await authority.wait("a question") { $0.questions.count == 3 }
          authority.end()
          #expect(try await known { try await outcome.first.soon("an outcome") } == denied)
          #expect(complaints().count == 2 && complaints()[1].contains("NoReply"))
          #expect(try await daemon.outcomes(of: [describe], as: User.games) == [denied])
          #expect(complaints().count == 2)
          let next = try PolkitAuthority(at: address)
          next.verdict = { _ in .authorised }
          #expect(try await daemon.outcomes(of: [describe], as: User.games) == ["ok"])
        }
        // The bus has gone, and comes again.
        #expect(try await daemon.outcomes(of: [describe], as: User.games) == [denied])
        #expect(complaints().count == 3)
        _ = try await command("rm", ["-f", folder.appending("bus").string, folder.appending("notify").string])
        try await withBus(script, in: folder) { address in
          let authority = try PolkitAuthority(at: address)
          authority.verdict = { _ in .authorised }
          #expect(try await daemon.outcomes(of: [describe], as: User.games) == ["ok"])
        }
      }
    }
  }

  @Test("polkit itself, with the actions as they are installed and rules of an administrator's") @EventLoopActor
  func polkitd() async throws {
    let script = try Self.script()
    let policy = contents(of: try Guest.repositoryRoot().appending("polkit/io.qmpvarlink.policy"))
    let rules = """
      polkit.addRule(function(action, subject) {
        if (action.id == "io.qmpvarlink.observe" && subject.user == "games" && action.lookup("machine") == "m") return polkit.Result.YES;
        if (action.id == "io.qmpvarlink.full" && subject.user == "mail") return polkit.Result.YES;
        if (action.id.indexOf("io.qmpvarlink.") == 0 && subject.user == "news") return polkit.Result.NO;
      });
      """
    try await withTemporaryDirectory { folder in
      for (name, text) in [("actions/io.qmpvarlink.policy", policy), ("rules/10-test.rules", rules)] {
        let file = folder.appending(name)
        try FileManager.default.createDirectory(atPath: file.removingLastComponent().string, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: file.string))
      }
      // polkitd is a user of its own.
      _ = try await command("chmod", ["-R", "go+rX", folder.string])
      try await withBus(script, in: folder, ["polkitd"]) { address in
        try await Self.withDaemonAsking(folder, policy: "", owner: 0) { daemon in
          let query = call("io.qmpvarlink.QMP.QueryName")
          let flagged = call("io.qmpvarlink.Sessions.List", #"{"allowInteractiveAuthentication": true}"#)
          let calls = [describe, pause, query, list, flagged]
          let games = try await daemon.outcomes(of: calls, as: User.games)
          #expect(games == ["ok", challenged, challenged, "ok", "ok"])
          // Full includes the rest.
          #expect(try await daemon.outcomes(of: calls, as: User.mail) == calls.map { _ in "ok" })
          #expect(try await daemon.outcomes(of: calls, as: User.news) == calls.map { _ in denied })
          // Nobody is there who could be asked for a password.
          #expect(try await daemon.outcomes(of: calls, as: User.proxy) == calls.map { _ in challenged })
          #expect(!daemon.log.contains("polkit cannot be asked"))
        }
      }
    }
  }

  @Test("qmpctl has a person asked at a terminal, where the method can be called that way") @EventLoopActor
  func qmpctl() async throws {
    try await Self.withDaemonAndPolkit { daemon, authority, folder in
      authority.verdict = { $0.mayInteract ? .authorised : .challenge }
      let qmpctl = productsDirectory.appending("qmpctl").string
      let user = ["--reuid=\(User.games)", "--regid=\(User.games)", "--clear-groups"]
      @EventLoopActor func atTerminal(_ words: [String]) async throws -> String {
        // Its agent for terminals finds a polkit there that does not know such.
        let environment = ["DBUS_SYSTEM_BUS_ADDRESS": "unix:path=\(folder.appending("bus"))"]
        return try await withTerminal(["setpriv"] + user + [qmpctl] + words, columns: 200, environment: environment) { window in
          try await window.wait(for: "status ").joined(separator: "\n")
        }
      }
      let socket = daemon.socket.string
      let words = "interactive authentication required"

      let without = try await command("setpriv", user + [qmpctl, "sessions", socket])
      #expect(without.status == 1 && without.error.contains(words))
      #expect(authority.questions.map(\.mayInteract) == [false])
      let forbidden = try await atTerminal(["sessions", socket, "--no-ask-password"])
      #expect(forbidden.contains("status 1") && forbidden.contains(words), "\(forbidden)")
      #expect(authority.questions.map(\.mayInteract) == [false, false])
      let asked = try await atTerminal(["sessions", socket])
      #expect(asked.contains("status 0") && asked.contains("No sessions."), "\(asked)")
      #expect(authority.questions.map(\.mayInteract) == [false, false, false, true])
      let session = try await atTerminal(["proxy", socket, "--", "python3", "-c", Self.greeting, "{}"])
      #expect(session.contains("status 0") && session.contains("\"QMP\""), "\(session)")
      #expect(authority.questions.suffix(2).map(\.action) == ["io.qmpvarlink.full", "io.qmpvarlink.full"])
      #expect(authority.questions.suffix(2).map(\.mayInteract) == [false, true])
      let pause = try await atTerminal(["pause", socket])
      #expect(pause.contains("status 1") && pause.contains(words), "\(pause)")
    }
  }

  private static let greeting =
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(4096).decode())"

  // MARK: the set-up

  /// What became of calls that are made at once.
  @EventLoopActor
  private final class Outcomes {
    private(set) var all: [String] = []
    let first = Promise<String>()
    let eight = Promise<Void>()

    func add(_ outcomes: [String]) {
      all += outcomes
      first.fulfil(outcomes.first ?? "none")
      if all.count >= 8 { eight.fulfil() }
    }
  }

  private static func script() throws -> FilePath {
    FilePath(try #require(Bundle.module.path(forResource: "run_bus", ofType: nil, inDirectory: "Clients")))
  }

  /// Runs a daemon, and a polkit of the test's on a bus of their own.
  @EventLoopActor
  private static func withDaemonAndPolkit(
    policy: String = "", owner: Int = 0, _ body: @escaping @EventLoopActor (RunningDaemon, PolkitAuthority, FilePath) async throws -> Void
  ) async throws {
    let script = try script()
    try await withTemporaryDirectory { folder in
      try await withBus(script, in: folder) { address in
        let authority = try PolkitAuthority(at: address)
        try await withDaemonAsking(folder, policy: policy, owner: owner) { daemon in try await body(daemon, authority, folder) }
        authority.end()
      }
    }
  }

  /// Runs a daemon that asks the polkit of the bus in a folder.
  @EventLoopActor
  private static func withDaemonAsking(
    _ folder: FilePath, policy: String, owner: Int, _ body: @escaping @EventLoopActor (RunningDaemon) async throws -> Void
  ) async throws {
    let file = folder.appending("policy")
    try Data(policy.utf8).write(to: URL(filePath: file.string))
    let directory = folder.appending("run")
    for arguments in [["chmod", "644", file.string], ["install", "-d", "-o", "\(owner)", directory.string]] {
      let made = try await command(arguments[0], Array(arguments.dropFirst()))
      guard made.status == 0 else { throw RunningDaemon.Failure(made.error) }
    }
    let launcher = ["env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=\(folder.appending("bus"))"]
    let user = owner == 0 ? [] : ["setpriv", "--reuid=\(owner)", "--regid=\(owner)", "--clear-groups"]
    _ = try await withDaemon(
      ["run", "--machine", "m", "--accel=tcg", "--polkit=yes", "--policy", file.string, "--", "-machine", "none"],
      directory: directory, launcher: launcher + user, body)
  }
}
