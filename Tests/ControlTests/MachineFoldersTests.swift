import Control
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite(.onEventLoop) struct MachineFoldersTests {
  @Test("one's own machines come first, root's own are the system's")
  func standard() {
    func paths(_ environment: [String: String], isRoot: Bool) -> [FilePath] {
      MachineFolders.standard(environment: { environment[$0] }, isRoot: isRoot).paths
    }
    #expect(paths(["XDG_RUNTIME_DIR": "/run/user/7"], isRoot: false) == ["/run/user/7/qmp-varlink", "/run/qmp-varlink"])
    #expect(paths(["XDG_RUNTIME_DIR": "/run/user/0"], isRoot: true) == ["/run/qmp-varlink", "/run/user/0/qmp-varlink"])
    #expect(paths(["XDG_RUNTIME_DIR": ""], isRoot: false) == ["/run/qmp-varlink"])
    #expect(paths(["XDG_RUNTIME_DIR": "/x", "QMPCTL_PATH": "/a::/b"], isRoot: false) == ["/a", "/b"])
  }

  @Test("a machine is a socket in a folder of its name; the first folder that has it counts") @EventLoopActor
  func finding() throws {
    let temporary = try TemporaryFolder()
    let folder = temporary.path
    let folders = MachineFolders([folder.appending("one"), folder.appending("two"), folder.appending("none")])
    var sockets: [ListeningSocket] = []
    for path in ["one", "one/b", "two", "two/a", "two/b", "two/file", "two/empty"] {
      try #require(mkdir(folder.appending(path).string) == 0)
      if path.hasSuffix("/a") || path.hasSuffix("/b") {
        sockets.append(try ListeningSocket(at: folder.appending(path).appending("control")))
      }
    }
    _ = try FileDescriptor.open(
      folder.appending("two/file/control"), .writeOnly, options: .create, permissions: .ownerReadWrite
    ).close()
    #expect(folders.machines.map(\.name) == ["a", "b", "b"])
    #expect(
      folders.machines.map { $0.socket.string.dropFirst(folder.string.count) } == ["/two/a/control", "/one/b/control", "/two/b/control"])
    #expect(try folders.machine("b").socket == folder.appending("one/b/control"))
    #expect(try folders.machine(folder.appending("two/b").string).name == "b")
    #expect(try folders.machine(folder.appending("two/b/control").string).name == "b")
    for name in ["file", "empty", "", ".", "..", "c"] {
      let error = #expect(throws: ControlError.self) { try folders.machine(name) }
      #expect(error?.kind == .unreachable && error?.hint == "There are: a, b, b", "\(name)")
    }
    let nothing = #expect(throws: ControlError.self) { try MachineFolders([]).machine("x") }
    #expect(nothing?.hint?.hasPrefix("There are none here.") == true)
    #expect(throws: ControlError.self) { try folders.machine(folder.string) }
    for socket in sockets { socket.close() }
    withExtendedLifetime(temporary) {}
  }

  @Test("words of an error's name, and lengths of time")
  func words() {
    for (milliseconds, words) in [
      (0, "0"), (40, "40ms"), (999, "999ms"), (1000, "1s"), (3250, "3.250s"), (3005, "3.005s"), (60_000, "1min"), (303_000, "5min 3s"),
      (7_500_000, "2h 5min"), (7_203_000, "2h"), (90_000_000, "1d 1h"),
    ] { #expect(Duration.milliseconds(milliseconds).inWords == words) }
  }
}

private func mkdir(_ path: String) -> CInt { Glibc.mkdir(path, 0o755) }
