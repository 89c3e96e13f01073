import Glibc
import QMP
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@testable import Machine

@Suite(.onEventLoop) struct MachineStartTests {
  /// Starts a machine whose QEMU is a shell script.
  @EventLoopActor
  private func start(
    _ script: String, cancelled: Promise<Void> = Promise(),
    _ configure: (inout VirtualMachineConfiguration, TemporaryFolder) throws -> Void = { _, _ in }
  ) async throws -> (outcome: Result<Machine, MachineError>, folder: TemporaryFolder) {
    let folder = try TemporaryFolder()
    var configuration = VirtualMachineConfiguration(name: try #require(MachineName("test")))
    configuration.qemu = try folder.script("qemu", script).string
    configuration.accelerator = .tcg
    try configure(&configuration, folder)
    while true {
      do throws(MachineError) {
        return (.success(try await Machine.start(configuration, logger: ScriptedQEMU.silent, cancelled: cancelled)), folder)
      } catch .system(let error) where error.errno == .textFileBusy {
        // A child that another test is just starting has the script open for writing still.
        continue
      } catch {
        return (.failure(error), folder)
      }
    }
  }

  /// A QEMU that negotiates, and waits for `quit`. It reads exactly the commands' bytes.
  static let wellBehaved = """
    take() { head -c "$1" <&3 >/dev/null; }
    printf '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 1, "major": 11}}, "capabilities": ["oob"]}}\\r\\n' >&3
    take 30; printf '{"return": {}}' >&3
    take 26; printf '{"return": {"running": true, "status": "running"}}' >&3
    take 18
    """

  @Test("a QEMU that ends instead of starting is told with its words and its status") @EventLoopActor
  func startFails() async throws {
    let outcome = try await start("echo 'qemu: no such thing' >&2; printf 'unfinished' >&2; exit 3").outcome
    guard case .failure(.startFailed(let status, let words)) = outcome else {
      Issue.record("\(outcome)")
      return
    }
    #expect(status == .exited(3))
    #expect(words == ["qemu: no such thing", "unfinished"])
    #expect(outcome.complaint == "QEMU exited with status 3 before it was ready: qemu: no such thing\nunfinished")
  }

  @Test("a QEMU that a signal ends is told so") @EventLoopActor
  func killed() async throws {
    let outcome = try await start("kill -SEGV $$").outcome
    #expect(outcome.complaint == "QEMU was killed by signal 11 before it was ready")
  }

  @Test("of much that is printed, the end is kept") @EventLoopActor
  func muchIsPrinted() async throws {
    let outcome = try await start("i=0; while [ $i -lt 5000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1").outcome
    guard case .failure(.startFailed(_, let words)) = outcome else {
      Issue.record("\(outcome)")
      return
    }
    #expect(words == (4980..<5000).map { "line \($0)" })
  }

  @Test("a program that is not there, or none, is an error") @EventLoopActor
  func noProgram() async throws {
    let missing = try await start("") { configuration, folder in configuration.qemu = folder.path.appending("nowhere").string }
    guard case .failure(.system(let error)) = missing.outcome else {
      Issue.record("\(missing.outcome)")
      return
    }
    #expect(error.errno == .noSuchFileOrDirectory)
    #expect(error.call.hasSuffix("/nowhere"))
    let plain = try await start("") { configuration, folder in configuration.qemu = try folder.file("plain", [1, 2, 3]).string }
    guard case .failure(.system(let error)) = plain.outcome else {
      Issue.record("\(plain.outcome)")
      return
    }
    #expect(error.errno == .permissionDenied)
  }

  @Test("an image that is not there is an error before anything is started") @EventLoopActor
  func noImage() async throws {
    let (outcome, folder) = try await start("touch \"$0.started\"") { configuration, folder in
      configuration.image = folder.path.appending("disk")
    }
    #expect(outcome.complaint?.contains("cannot open") == true)
    #expect(access(folder.path.appending("qemu.started").string, F_OK) != 0)
  }

  @Test("a program that does not speak QMP is ended") @EventLoopActor
  func notQEMU() async throws {
    let (outcome, folder) = try await start("echo $$ >\"$0.pid\"; echo hello >&3; exec sleep 1000")
    guard case .failure(.qmp(.badReply)) = outcome else {
      Issue.record("\(outcome)")
      return
    }
    let process = try #require(pid_t(contents(of: folder.path.appending("qemu.pid")).dropLast()))
    // Its end is reaped sooner or later; what is asked of it here is only that it comes.
    while kill(process, 0) == 0 { try await quiet() }
  }

  @Test("a start that is cancelled ends QEMU") @EventLoopActor
  func cancelled() async throws {
    let cancelled = Promise<Void>()
    cancelled.fulfil()
    let outcome = try await start("exec sleep 1000", cancelled: cancelled).outcome
    #expect(outcome.complaint == "QEMU was killed by signal 9 before it was ready")
  }

  @Test("a QEMU that starts is there until it is told to quit") @EventLoopActor
  func starts() async throws {
    let machine = try await start(Self.wellBehaved).outcome.get()
    #expect(machine.greeting.version == "11.1.2" && machine.greeting.capabilities == ["oob"])
    let process = try #require(machine.process)
    #expect(process.ended.result == nil && machine.disconnected.result == nil)
    try await machine.terminate()
    #expect(try await process.ended.soon() == .exited(0))
    #expect(try await machine.disconnected.soon() == .disconnected)
    // A signal to one that has ended goes nowhere.
    process.signal(SIGKILL)
  }

  @Test("QEMU gets its arguments, the control socket, and nothing else of ours") @EventLoopActor
  func inheritance() async throws {
    let stray = try pipePair()
    let script = #"""
      for word in "$@"; do printf '%s\0' "$word"; done >"$0.arguments"
      ls /proc/$$/fd >"$0.descriptors"; readlink /proc/$$/fd/* >"$0.files"; readlink /proc/$$/fd/0 >"$0.input"
      exit 1
      """#
    let started = try await start(script) { configuration, _ in configuration.qemuArguments = ["-x", "", "a b\n'c\""] }
    let result = { (name: String) in contents(of: started.folder.path.appending("qemu.\(name)")) }
    let words = result("arguments").split(separator: "\0", omittingEmptySubsequences: false).dropLast().map(String.init)
    #expect(words.suffix(3) == ["-x", "", "a b\n'c\""])
    #expect(words.prefix(2) == ["-name", "guest=test"])
    // What the shell opens for itself is at 10 and above.
    #expect(result("descriptors").split(separator: "\n").filter { $0.count == 1 }.sorted() == ["0", "1", "2", "3"])
    #expect(!result("files").contains("pipe:[\(try #require(inode(stray.reading)))]"))
    #expect(result("input") == "/dev/null\n")
    close(stray.reading)
    close(stray.writing)
  }

  @Test("a socket that nobody serves cannot be attached to") @EventLoopActor
  func attachNowhere() async throws {
    let folder = try TemporaryFolder()
    let path = folder.path.appending("qmp")
    await #expect {
      _ = try await Machine.attach(name: try #require(MachineName("x")), to: path, logger: ScriptedQEMU.silent)
    } throws: {
      "\($0)" == "\(QMPError.connect(path: path.string, .noSuchFileOrDirectory))"
    }
  }
}
