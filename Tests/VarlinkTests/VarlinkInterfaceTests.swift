import Interfaces
import SystemdEvent
import TestSupport
import Testing
import Varlink

@Suite(.onEventLoop) struct VarlinkInterfaceTests {
  static let texts = [
    "MachineInstance": Interfaces.machineInstance, "VirtualMachineInstance": Interfaces.virtualMachineInstance,
    "QemuMachineInstance": Interfaces.qemuMachineInstance, "test": TestService.text,
  ]

  @Test("a text that is printed parses again to the same text", arguments: texts.keys.sorted()) @EventLoopActor
  func roundTrip(name: String) throws {
    let text = try #require(Self.texts[name])
    let printed = try VarlinkInterface(parsing: text).text
    #expect(try VarlinkInterface(parsing: printed).text == printed)
    #expect(printed.contains("interface "))
  }

  @Test("name and methods are those of the text") @EventLoopActor
  func methods() throws {
    let machine = try VarlinkInterface(parsing: Interfaces.machineInstance)
    #expect(machine.name == "io.systemd.MachineInstance")
    #expect(
      machine.methods.sorted() == [
        "AddStorage", "Describe", "Pause", "PowerOff", "Reboot", "RemoveStorage", "ReplaceStorage", "Resume", "SubscribeEvents",
        "Terminate",
      ])
    #expect(try VarlinkInterface(parsing: Interfaces.qemuMachineInstance).methods == ["AcquireQMP"])
    let virtual = try VarlinkInterface(parsing: Interfaces.virtualMachineInstance)
    #expect(virtual.name == "io.systemd.VirtualMachineInstance")
    #expect(virtual.methods == [])
  }

  @Test("what a method needs of its call is printed with it") @EventLoopActor
  func kinds() throws {
    let plain = try VarlinkInterface(parsing: TestService.text).text
    let printed = try VarlinkInterface(parsing: TestService.text, kinds: TestService.kinds).text
    #expect(!plain.contains("[Supports"))
    #expect(printed.contains("[Supports 'more' flag]"))
    #expect(printed.contains("[Supports 'upgrade' flag]"))
  }

  @Test(
    "a faulty text is refused with the place of the fault",
    arguments: ["", "interface test.a\n\nmethod Broken( -> ()", "not an interface", "interface test.a\nmethod"])
  @EventLoopActor
  func faults(text: String) {
    do throws(VarlinkInterface.ParseError) {
      _ = try VarlinkInterface(parsing: text)
      Issue.record("parsed")
    } catch {
      #expect("\(error)".contains("line") && "\(error)".contains("column"), "\(error)")
    }
  }
}
