import Foundation
import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("the units for systemd", .onEventLoop)
struct UnitsTests {
  private static let daemon = productsDirectory.appending("qmp-varlinkd").string
  /// systemd-analyze's figure for the unit, of 10; that of systemd-vmspawn's own unit is 9.3.
  private static let exposure = 2.5

  /// The units as they are in the checkout, but with the daemon that was built.
  private func withUnits(_ body: (FilePath) async throws -> Void) async throws {
    try await withTemporaryDirectory { folder in
      for manager in ["system", "user"] {
        try FileManager.default.createDirectory(atPath: folder.appending(manager).string, withIntermediateDirectories: true)
        for name in ["qmp-varlink@.service", "qmp-varlink@.socket"] {
          let text = contents(of: try Guest.repositoryRoot().appending("systemd/\(manager)/\(name)"))
          try #require(!text.isEmpty)
          let unit = text.replacing("/usr/bin/qmp-varlinkd", with: Self.daemon)
          try Data(unit.utf8).write(to: URL(filePath: folder.appending("\(manager)/\(name)").string))
        }
      }
      try await body(folder)
    }
  }

  @Test("systemd finds nothing wrong with them", arguments: ["system", "user"])
  func verify(manager: String) async throws {
    try await withUnits { folder in
      let units = ["service", "socket"].map { "\(folder)/\(manager)/qmp-varlink@web.\($0)" }
      let result = try await command(
        "systemd-analyze", ["verify", "--man=no", "--\(manager)"] + units, environment: ["XDG_RUNTIME_DIR": folder.string])
      #expect(result.status == 0 && !result.error.contains("qmp-varlink"), "\(result.error)")
    }
  }

  @Test("systemd's figure for what a service may reach is small")
  func security() async throws {
    try await withUnits { folder in
      let unit = "\(folder)/system/qmp-varlink@.service"
      let arguments = ["security", "--offline=yes", "--no-pager", "--threshold=\(Int(Self.exposure * 10))", unit]
      let result = try await command("systemd-analyze", arguments)
      #expect(result.status == 0, "\(result.error)")
      let figure = try #require(result.output.firstMatch(of: /Overall exposure level for .*: ([0-9.]+)/)?.1)
      print("exposure of qmp-varlink@.service: \(figure) of 10")
      #expect(try #require(Double(figure)) <= Self.exposure)
    }
  }

  @Test("the command that they run starts a machine, which makes no system call that they forbid", arguments: ["system", "user"])
  func commandLine(manager: String) async throws {
    try await withUnits { folder in
      let unit = contents(of: folder.appending("\(manager)/qmp-varlink@.service"))
      let command = try #require(unit.firstMatch(of: /\nExecStart=(.*)\n/)?.1)
      let words = command.replacing("%i", with: "web").replacing("%E", with: folder.string).split(separator: " ").map { String($0) }
      // A machine with what the options give, and the firmware at work.
      let options = """
        # the options of 'web'
        --image \(folder)/disk
        --image-format raw
        --network user
        --vsock auto
        --tpm auto
        --memory 128M
        --register=no
        --stop-timeout 1
        --
        -device
        virtio-rng-pci
        """
      try FileManager.default.createDirectory(atPath: "\(folder)/qmp-varlink", withIntermediateDirectories: true)
      try Data(options.utf8).write(to: URL(filePath: "\(folder)/qmp-varlink/web.conf"))
      try Data(count: 1 << 20).write(to: URL(filePath: "\(folder)/disk"))
      let calls = [
        #"{"method":"io.systemd.MachineInstance.Describe"}"#,
        #"{"method":"io.qmpvarlink.Monitors.Add","parameters":{"id":"m","listen":"\#(folder)/m"}}"#,
        #"{"method":"io.systemd.QemuMachineInstance.AcquireQMP","upgrade":true}"#,
      ]
      let qmp = #"{"execute":"qmp_capabilities"}{"execute":"query-pci"}{"execute":"query-blockstats"}"#
      let result = try await TestSupport.command(
        "strace", ["-f", "-c", "-U", "name", "-o", "\(folder)/calls"] + words, input: calls.map { $0 + "\0" }.joined() + qmp,
        environment: ["SYSTEMD_VARLINK_LISTEN": "-", "RUNTIME_DIRECTORY": "\(folder)/run"])
      #expect(result.status == 0 && result.output.contains(#""running":true"#), "\(result.error)")
      #expect(result.output.contains("virtio") && result.output.contains("drive-") || result.output.contains("rd_bytes"))

      let filter = try #require(unit.firstMatch(of: /\nSystemCallFilter=(.*)\n/)?.1).split(separator: " ").map { String($0) }
      let allowed = try await systemCalls(filter + ["@default"])
      let made = contents(of: folder.appending("calls")).split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        .filter { $0.wholeMatch(of: /[a-z_0-9]+/) != nil && $0 != "syscall" && $0 != "total" }
      #expect(made.count > 30, "\(made)")
      #expect(made.filter { !allowed.contains($0) } == [])
    }
  }

  /// What systemd's groups of system calls stand for.
  private func systemCalls(_ filter: [String]) async throws -> Set<String> {
    let listing = try await TestSupport.command("systemd-analyze", ["syscall-filter", "--no-pager"]).output
    var groups: [String: [String]] = [:]
    var group = ""
    for line in listing.split(separator: "\n") where !line.trimmingCharacters(in: .whitespaces).hasPrefix("#") {
      if line.hasPrefix("@") {
        group = String(line)
      } else if line.hasPrefix(" ") {
        groups[group, default: []].append(line.trimmingCharacters(in: .whitespaces))
      }
    }
    var result: Set<String> = []
    var open = filter
    while let name = open.popLast() {
      if name.hasPrefix("@") { open += try #require(groups[name], "systemd has no group \(name)") } else { result.insert(name) }
    }
    return result
  }

  @Test("what is wrong in the options' file is told, with its name") @EventLoopActor
  func wrongOptions() async throws {
    try await withTemporaryDirectory { folder in
      let file = folder.appending("web.conf").string
      for (text, why) in [
        (nil, "cannot open \(file): No such file or directory"), ("memory 2G\n", "\(file):1: 'memory 2G' is no option"),
        ("--memroy 2G\n", "options were read from \(file) too"), ("--cpus two\n", "options were read from \(file) too"),
      ] as [(String?, String)] {
        if let text { try Data(text.utf8).write(to: URL(filePath: file)) }
        let result = try await command(Self.daemon, ["run", "--machine=web", "--config=\(file)"])
        #expect(result.status == 64 && result.error.contains(why), "\(result.status) \(result.error)")
      }
    }
  }
}
