import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// A machine without devices, where none matters: it is up in a blink.
let bareMachine = ["run", "--machine", "test", "--accel", "tcg", "--memory", "64M", "--", "-machine", "none"]

@Suite("io.systemd.MachineInstance on a real QEMU", .onEventLoop)
struct MachineInstanceTests {
  @Test("varlinkctl shows who serves, and what") @EventLoopActor
  func introspection() async throws {
    let (_, status) = try await withDaemon(bareMachine) { daemon in
      let info = try await command("varlinkctl", ["info", daemon.address])
      #expect(info.status == 0)
      #expect(info.output.contains("qmp-varlinkd"))
      let interfaces = try await command("varlinkctl", ["list-interfaces", daemon.address]).output.split(separator: "\n")
      for name in ["MachineInstance", "QemuMachineInstance", "VirtualMachineInstance"].map({ "io.systemd.\($0)" }) {
        #expect(interfaces.contains(Substring(name)))
        let introspected = try await command("varlinkctl", ["introspect", daemon.address, name])
        #expect(introspected.status == 0, "\(introspected.error)")
        try await withTemporaryDirectory { folder in
          let file = folder.appending("\(name).varlink")
          let validated = try await command("sh", ["-c", "cat > \(file); varlinkctl validate-idl \(file)"], input: introspected.output)
          #expect(validated.status == 0, "\(validated.error)")
        }
      }
    }
    #expect(status == 0)
  }

  @Test("Describe, Pause and Resume") @EventLoopActor
  func lifeOfAMachine() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let connection = try daemon.connect()
      #expect(try await connection.call("io.systemd.MachineInstance.Describe") == #"{"parameters":{"running":true,"status":"running"}}"#)
      #expect(try await connection.call("io.systemd.MachineInstance.Pause") == "{}")
      #expect(try await connection.call("io.systemd.MachineInstance.Describe") == #"{"parameters":{"running":false,"status":"paused"}}"#)
      #expect(try await connection.call("io.systemd.MachineInstance.Resume") == "{}")
      #expect(try await connection.call("io.systemd.MachineInstance.Reboot") == "{}")
      #expect(try await connection.call("io.systemd.MachineInstance.PowerOff") == "{}")
      let described = try await command("varlinkctl", ["-j", "call", daemon.address, "io.systemd.MachineInstance.Describe", "{}"])
      #expect(described.output == #"{"running":true,"status":"running"}"# + "\n")
      let bogus = try await connection.call("io.systemd.MachineInstance.Describe", #"{"bogus":1}"#)
      #expect(bogus == #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"bogus"}}"#)
    }
  }

  @Test("events begin with READY, keep QEMU's timestamp, and end with the machine") @EventLoopActor
  func events() async throws {
    let (_, status) = try await withDaemon(bareMachine) { daemon in
      let all = try daemon.connect()
      let filtered = try daemon.connect()
      let ready = #"{"parameters":{"event":"READY"},"continues":true}"#
      let method = "io.systemd.MachineInstance.SubscribeEvents"
      #expect(try await all.call(method, flags: #","more":true"#) == ready)
      #expect(try await filtered.call(method, #"{"filter":["RESUME"]}"#, flags: #","more":true"#) == ready)
      for verb in ["Pause", "Resume", "Reboot"] { #expect(try await daemon.call("io.systemd.MachineInstance.\(verb)") == "{}") }
      let stop = try await all.receive()
      #expect(stop.contains(#""event":"STOP","timestamp":{"seconds":"#))
      #expect(try await all.receive().contains(#""event":"RESUME""#))
      #expect(try await all.receive().contains(#""event":"RESET","data":{"guest":false,"reason":"host-qmp-system-reset"}"#))
      #expect(try await filtered.receive().contains(#""event":"RESUME""#))
      #expect(try await daemon.call("io.systemd.MachineInstance.Terminate") == "{}")
      #expect(try await all.receive().contains(#""event":"SHUTDOWN","data":{"guest":false,"reason":"host-qmp-quit"}"#))
      try await all.peer.waitForEnd()
      try await filtered.peer.waitForEnd()
    }
    #expect(status == 0)
  }

  @Test("SubscribeEvents needs the more flag, and hangs on no other") @EventLoopActor
  func subscribeFlags() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let method = "io.systemd.MachineInstance.SubscribeEvents"
      let expected = #"{"error":"org.varlink.service.ExpectedMore"}"#
      #expect(try await daemon.call(method) == expected)
      let upgrading = try await daemon.connect().call(method, flags: #","upgrade":true"#)
      #expect(upgrading == expected)
      #expect(try await daemon.call(method, #"{"filter":"STOP"}"#).contains("InvalidParameter"))
    }
  }

  @Test("Python's varlink package makes the typed calls") @EventLoopActor
  func pythonVarlink() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let result = try await python("varlink_calls", [daemon.address])
      #expect(result.status == 0, "\(result.error)")
      #expect(result.output == "running\npaused\nSTOP\nrunning\n")
    }
  }
}
