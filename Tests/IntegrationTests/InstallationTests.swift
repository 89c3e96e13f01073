import Foundation
import SystemPackage
import TestSupport
import Testing

@Suite("installation")
struct InstallationTests {
  private func make(_ target: String, _ variables: [String]) async throws -> CommandResult {
    try await command(
      "make", ["--no-print-directory", "-C", try Guest.repositoryRoot().string, target, "BUILD=\(productsDirectory)"] + variables)
  }

  @Test("make install honours DESTDIR and PREFIX: all is below them, and the units name the program there")
  func install() async throws {
    try await withTemporaryDirectory { folder in
      let result = try await make("install", ["DESTDIR=\(folder)/root", "PREFIX=/opt/qv"])
      try #require(result.status == 0, "\(result.error)")
      let found = try await command("sh", ["-c", "cd \(folder)/root && find . -type f | sort"]).output.split(separator: "\n")
      for file in [
        "bin/qmp-varlinkd", "bin/qmp-simulator", "lib/systemd/system/qmp-varlink@.service", "lib/systemd/system/qmp-varlink@.socket",
        "lib/systemd/user/qmp-varlink@.service", "lib/systemd/user/qmp-varlink@.socket", "share/man/man8/qmp-varlinkd.8",
        "share/man/man7/qmp-varlink.7", "share/man/man1/qmp-simulator.1", "share/bash-completion/completions/qmp-varlinkd",
        "share/zsh/site-functions/_qmp-varlinkd", "share/fish/vendor_completions.d/qmp-varlinkd.fish",
        "share/qmp-varlink/interfaces/io.systemd.MachineInstance.varlink", "share/qmp-varlink/interfaces/io.qmpvarlink.QMP.varlink",
        "share/polkit-1/actions/io.qmpvarlink.policy", "share/doc/qmp-varlink/README.md", "share/doc/qmp-varlink/examples/varlinkctl-tour",
      ] {
        #expect(found.contains("./opt/qv/\(file)"), "\(file)")
      }
      #expect(found.allSatisfy { $0.hasPrefix("./opt/qv/") })
      let unit = contents(of: folder.appending("root/opt/qv/lib/systemd/system/qmp-varlink@.service"))
      #expect(unit.contains("\nExecStart=/opt/qv/bin/qmp-varlinkd run "))

      // The shells take what completes their command lines.
      let share = "\(folder)/root/opt/qv/share"
      for (shell, file) in [
        ("bash", "bash-completion/completions/qmp-varlinkd"), ("zsh", "zsh/site-functions/_qmp-varlinkd"),
        ("fish", "fish/vendor_completions.d/qmp-varlinkd.fish"),
      ] {
        let checked = try await command(shell, ["-n", "\(share)/\(file)"])
        #expect(checked.status == 0 && contents(of: FilePath("\(share)/\(file)")).contains("stop-timeout"), "\(shell): \(checked.error)")
      }
    }
  }

  @Test("the Debian package is the same each time, installs, serves a machine from where it is, and leaves nothing behind")
  func package() async throws {
    try await withTemporaryDirectory { folder in
      let script = try Guest.repositoryRoot().appending("scripts/make-deb").string
      var sums: [Substring] = []
      var package = ""
      for place in ["one", "other"] {
        let made = try await command(
          script, ["--for-tests", productsDirectory.string, "\(folder)/\(place)"])
        try #require(made.status == 0, "\(made.error)")
        package = made.output.trimmingCharacters(in: .whitespacesAndNewlines)
        sums += try await command("sha256sum", [package]).output.split(separator: " ").prefix(1)
      }
      #expect(sums.count == 2 && sums[0] == sums[1])
      let fields = try await command("dpkg-deb", ["--field", package])
      #expect(fields.output.contains("\nDepends: libc6 (>= 2.") && fields.output.contains("libsystemd0 (>= 262)"), "\(fields.output)")
      let tried = try await command(try Guest.repositoryRoot().appending("scripts/try-deb").string, [package])
      #expect(
        tried.status == 0 && tried.output.hasPrefix("try-deb: installed, used and purged: qmp-varlink_"), "\(tried.output)\(tried.error)")
    }
  }
}
