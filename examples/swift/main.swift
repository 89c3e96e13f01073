// A client in Swift on the package's libraries: a typed call, a monitor of its own, and QMP on that.
//
//   swift run varlink-example unix:/run/qmp-varlink/NAME/control
import Foundation
import QMP
import SystemPackage
import SystemdEvent
import SystemdJSON
import Varlink

guard CommandLine.arguments.count == 2, CommandLine.arguments[1].hasPrefix("unix:/") else {
  FileHandle.standardError.write(Data("usage: varlink-example unix:PATH\n".utf8))
  exit(64)
}
let control = FilePath(String(CommandLine.arguments[1].dropFirst("unix:".count)))

/// Asks a machine how it is, by Varlink, and what it is, by QMP.
@EventLoopActor
func describe(_ control: FilePath) async throws {
  let limit = Duration.seconds(30)
  let machine = try VarlinkClient(connectingTo: control)
  let state = try await machine.call("io.systemd.MachineInstance.Describe", within: limit)
  print("status: \(state["status"]?.string ?? "unknown")")

  // The monitor is at a path that only this process knows, and goes again when it is not needed any more.
  let path = "/tmp/varlink-example-\(getpid())"
  let id = JSONVariant.string("example-\(getpid())")
  _ = try await machine.call(
    "io.qmpvarlink.Monitors.Add", .object(["id": id, "listen": .string(path)]), within: limit)
  do {
    let qmp = try QMPClient(connectingTo: FilePath(path))
    let greeting = try await qmp.negotiate(within: limit)
    print("QEMU: \(greeting.version)")
    let name = try await qmp.execute("query-name")
    print("name: \(name["name"]?.string ?? "none")")
    do {
      try await qmp.execute("no-such-command")
    } catch QMPError.execute(let command, let errorClass, let description) {
      print("\(command): \(errorClass): \(description)")
    }
    qmp.close()
  } catch {
    _ = try? await machine.call("io.qmpvarlink.Monitors.Remove", .object(["id": id]), within: limit)
    throw error
  }
  _ = try await machine.call("io.qmpvarlink.Monitors.Remove", .object(["id": id]), within: limit)
}

// Everything happens on the event loop, which is the executor of every task that is started here.
startTask {
  do {
    try await describe(control)
    EventLoop.shared.exit(0)
  } catch {
    FileHandle.standardError.write(Data("varlink-example: \(error)\n".utf8))
    EventLoop.shared.exit(1)
  }
}
exit(try EventLoop.shared.run())
