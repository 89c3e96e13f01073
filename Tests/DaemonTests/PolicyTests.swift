import Glibc
import Interfaces
import QEMUJSON
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import Bridge

@Suite("the policy", .onEventLoop) struct PolicyTests {
  private static var names: PolicyText.Names {
    PolicyText.Names(user: { ["alice": 1001, "bob": 1002][$0] }, group: { ["operators": 2001, "all": 2002][$0] })
  }

  private static func policy(_ text: String) throws(PolicyText.Fault) -> Policy {
    try PolicyText.policy(Array(text.utf8), owner: 900, names: names)
  }

  private static func permitted(_ policy: Policy, _ user: UInt32?, _ groups: [UInt32] = []) -> [Privilege] {
    Privilege.allCases.filter { policy.permits($0, user: user, groups: { groups }) }
  }

  @Test("without a line the owner and root may do everything, others nothing", arguments: ["", "\n\n", "# full everybody\n  \t\n"])
  func empty(text: String) throws {
    let policy = try Self.policy(text)
    #expect(!policy.grantsOthers)
    #expect(Self.permitted(policy, 900) == Privilege.allCases && Self.permitted(policy, 0) == Privilege.allCases)
    #expect(Self.permitted(policy, 1001, [0, 900]).isEmpty && Self.permitted(policy, nil, [0]).isEmpty)
    #expect(!policy.knows(user: 1001, groups: { [] }))
  }

  @Test("grants are by user, by group, and to everybody")
  func grants() throws {
    let policy = try Self.policy(
      """
      # who looks after it
      observe,control\tuser:alice  group:operators # and so on
      storage user:1003
      query group:2002
      full user:bob
      """)
    #expect(policy.grantsOthers)
    #expect(Self.permitted(policy, 1001) == [.observe, .control])
    #expect(Self.permitted(policy, 5, [7, 2001]) == [.observe, .control])
    #expect(Self.permitted(policy, 1003) == [.storage])
    #expect(Self.permitted(policy, 5, [2002]) == [.observe, .query])
    #expect(Self.permitted(policy, 1002) == Privilege.allCases)
    #expect(Self.permitted(policy, 5, [6]).isEmpty && Self.permitted(policy, 2001, [1001]).isEmpty)
    #expect(policy.knows(user: 5, groups: { [2002] }) && !policy.knows(user: 5, groups: { [6] }))
    #expect(Self.permitted(try Self.policy("observe everybody"), 77) == [.observe])
    #expect(Self.permitted(try Self.policy("all user:77"), 77) == Privilege.allCases)
  }

  @Test("groups are asked for only where they matter")
  func lazyGroups() throws {
    let policy = try Self.policy("observe user:alice\ncontrol group:operators")
    var asked = 0
    func groups() -> [UInt32] {
      asked += 1
      return []
    }
    _ = policy.permits(.observe, user: 5, groups: groups)
    _ = policy.permits(.control, user: 0, groups: groups)
    #expect(asked == 0)
    _ = policy.permits(.control, user: 5, groups: groups)
    #expect(asked == 1)
  }

  @Test(
    "what is wrong is told with its line",
    arguments: [
      ("obey everybody", 1, "there is no class 'obey'; there are observe, control, storage, monitors, query, full and all"),
      ("\nobserve,", 2, "it does not say to whom: user:NAME, group:NAME or everybody"),
      ("observe, everybody", 1, "there is no class ''; there are observe, control, storage, monitors, query, full and all"),
      ("# x\n\nfull", 3, "it does not say to whom: user:NAME, group:NAME or everybody"),
      ("full alice", 1, "'alice' is neither user:NAME nor group:NAME nor everybody"),
      ("full uid:7", 1, "'uid:7' is neither user:NAME nor group:NAME nor everybody"),
      ("full user:carol", 1, "there is no user 'carol'"), ("full group:alice", 1, "there is no group 'alice'"),
      ("full user:", 1, "there is no user ''"), ("full user:4294967295", 1, "there is no user '4294967295'"),
      ("full user:-1", 1, "there is no user '-1'"), ("full user:ä", 1, "a character that is not printable ASCII"),
      ("observe everybody\r\n", 1, "a character that is not printable ASCII"), ("\u{0}", 1, "a character that is not printable ASCII"),
      (String(repeating: "#", count: PolicyText.longest + 1), 1, "the policy is longer than 65536 bytes"),
    ])
  func faults(text: String, line: Int, reason: String) {
    do throws(PolicyText.Fault) {
      let policy = try Self.policy(text)
      Issue.record("taken: \(policy)")
    } catch {
      // The second one is complained of for its first fault.
      #expect(error.line == line)
      #expect(error.reason == reason || text == "\nobserve,")
    }
  }

  @Test("a file that others could write is refused, and so is what is no file")
  func files() throws {
    let folder = try TemporaryFolder()
    let good = try folder.file("good", Array("observe user:7".utf8))
    let policy = try PolicyFile.read(good, owner: geteuid())
    #expect(policy.permits(.observe, user: 7, groups: { [] }))
    func complaint(_ path: FilePath) -> String {
      do throws(PolicyFile.Failure) {
        _ = try PolicyFile.read(path, owner: geteuid())
        return "none"
      } catch { return error.description }
    }
    let open = try folder.file("open", [], mode: 0o664)
    #expect(complaint(open) == "the policy \(open) could be written by others than root and the daemon's user")
    #expect(complaint(folder.path) == "the policy \(folder.path) is not a file")
    let wrong = try folder.file("wrong", Array("\nfull x".utf8))
    #expect(complaint(wrong) == "\(wrong), line 2: 'x' is neither user:NAME nor group:NAME nor everybody")
    #expect(complaint(folder.path.appending("none")).hasPrefix("cannot open the policy"))
  }

  @Test("every method of every interface is in the table, and nothing else")
  @EventLoopActor
  func complete() {
    var methods: Set<String> = []
    for text in [Interfaces.machineInstance, Interfaces.qemuMachineInstance, Interfaces.sessions, Interfaces.monitors] {
      var interface: Substring = ""
      for line in text.split(separator: "\n") {
        if line.hasPrefix("interface ") { interface = line.dropFirst("interface ".count) }
        if line.hasPrefix("method "), let end = line.firstIndex(of: "(") {
          methods.insert("\(interface).\(line[..<end].dropFirst("method ".count))")
        }
      }
    }
    #expect(methods.count > 15)
    // What one needs for it, its parameters tell; and this is an interface of QEMU's schema.
    let others: Set = ["io.systemd.QemuMachineInstance.AcquireQMP", "io.qmpvarlink.QMP.SubscribeEvents"]
    #expect(methods.symmetricDifference(RequiredPrivilege.ofMethod.keys) == others)
  }

  @Test(
    "what depends on parameters",
    arguments: [
      ("io.systemd.QemuMachineInstance.AcquireQMP", "{}", Privilege.full),
      ("io.systemd.QemuMachineInstance.AcquireQMP", #"{"access":"query"}"#, .query),
      ("io.systemd.QemuMachineInstance.AcquireQMP", #"{"access":"full"}"#, .full),
      ("io.systemd.QemuMachineInstance.AcquireQMP", #"{"access":["query"]}"#, .full),
      ("io.qmpvarlink.QMP.Execute", #"{"command":"query-block"}"#, .query),
      ("io.qmpvarlink.QMP.Execute", #"{"command":"qom-get"}"#, .full), ("io.qmpvarlink.QMP.Execute", #"{"command":"stop"}"#, .full),
      ("io.qmpvarlink.QMP.QueryBlock", "{}", .query), ("io.qmpvarlink.QMP.Stop", "{}", .full),
      ("io.qmpvarlink.QMP.None", "{}", nil), ("org.example.Odd", "{}", nil),
    ])
  @EventLoopActor
  func dependent(method: String, parameters: String, privilege: Privilege?) throws {
    let commands = ["io.qmpvarlink.QMP.QueryBlock": "query-block", "io.qmpvarlink.QMP.Stop": "stop"]
    let parsed = try JSONVariant(parsing: parameters)
    #expect(RequiredPrivilege.of(method, parsed) { commands[$0] } == privilege)
  }

  @Test(
    "what is logged of arguments",
    arguments: [
      ("object-add", #"{"qom-type": "secret", "data": "geheim"}"#, #"{"qom-type": "secret", "data": "***"}"#),
      ("set_password", #"{"protocol": "vnc", "password": "geheim"}"#, #"{"protocol": "vnc", "password": "***"}"#),
      ("chardev-add", #"{"backend": {"data": {"addr": 1}}}"#, #"{"backend": {"data": {"addr": 1}}}"#),
      (
        "blockdev-add", #"{"file": [{"password-secret": "s0", "PassWord": "x"}]}"#,
        #"{"file": [{"password-secret": "s0", "PassWord": "***"}]}"#
      ),
      ("blockdev-add", #"{"filename": "https://u:p@host/x"}"#, #"{"filename": "***"}"#),
      ("human-monitor-command", #"{"command-line": "info block"}"#, #"{"command-line": "***"}"#),
      ("send-key", #"{"keys": [{"type": "qcode", "data": "a"}]}"#, #"{"keys": "***"}"#),
      ("qom-set", #"{"path": "/x", "property": "data", "value": "v"}"#, #"{"path": "/x", "property": "data", "value": "***"}"#),
      ("qom-set", #"{"path": "/x", "property": "b", "value": "v"}"#, #"{"path": "/x", "property": "b", "value": "v"}"#),
    ])
  func secrets(command: String, arguments: String, logged: String) throws {
    let (given, expected) = (try QObject(parsing: arguments), try QObject(parsing: logged))
    #expect(Secrets.masked(given, of: command) == expected)
  }
}
