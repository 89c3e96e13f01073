import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// What the time of day has to do with it: nothing.
@Suite("the clock is set", .onEventLoop) struct ClockFaultTests {
  @Test("no limit is kept by a clock that can be set: all of the daemon's timers are the monotonic clock's") @EventLoopActor
  func timers() async throws {
    try await withTemporaryDirectory { folder in
      let calls = folder.appending("calls")
      // Whatever waits for a point in time, or has the kernel say when one has come.
      let traced = "timerfd_create,timerfd_settime,timer_create,timer_settime,setitimer,alarm,clock_nanosleep,nanosleep,futex,clock_settime"
      // Beside it: the daemon stays the child that is waited for.
      let launcher = ["strace", "-D", "-e", "trace=\(traced)", "-o", calls.string]
      let options = ["--response-limit", "1", "--park-after", "0.05", "--max-active-monitors", "2"]
      let (_, status) = try await withDaemon(["run"] + options + bareMachine.dropFirst(), launcher: launcher) { daemon in
        // Sessions are parked, wait for their turn, and wake; QEMU does not answer, and is asked until it does.
        var sessions: [Peer] = []
        for _ in 0..<4 { sessions.append(try await daemon.acquireQMP()) }
        for session in sessions {
          try await session.write(#"{"execute":"qmp_capabilities"}"#)
          try await session.wait(for: #"{"return": {}}"#)
        }
        let qemu = try daemon.qemu()
        kill(qemu, SIGSTOP)
        let reply = try await known(within: .seconds(1)) { try await daemon.call("io.systemd.MachineInstance.Pause") }
        #expect(reply.contains("NotResponding"))
        kill(qemu, SIGCONT)
        while try await daemon.call("io.systemd.MachineInstance.Describe").contains("unresponsive") {}
        #expect(try await daemon.call("io.systemd.MachineInstance.Terminate") == "{}")
      }
      #expect(status == 0)
      let text = contents(of: calls)
      #expect(text.contains("timerfd_create(CLOCK_MONOTONIC") && text.contains("timerfd_settime("), "\(text)")
      for clock in ["CLOCK_REALTIME", "ALARM", "FUTEX_CLOCK_REALTIME", "clock_settime", "timer_create", "setitimer", "alarm("] {
        #expect(!text.contains(clock), "\(clock) in \(text)")
      }
    }
  }
}
