import Foundation
import SystemPackage
import TestSupport
import Testing

@Suite("documentation")
struct DocumentationTests {
  private static func file(_ path: String) throws -> String {
    let text = contents(of: try Guest.repositoryRoot().appending(path))
    return try #require(text.isEmpty ? nil : text, "\(path) is missing")
  }

  @Test("mandoc finds nothing wrong with the man pages")
  func lint() async throws {
    let pages = ["qmp-varlinkd.8", "qmp-varlink.7", "qmpctl.1", "qmp-simulator.1"].map { "man/\($0)" }
    let root = try Guest.repositoryRoot()
    let result = try await command("mandoc", ["-T", "lint", "-W", "warning"] + pages.map { root.appending($0).string })
    #expect(result.status == 0 && result.output.isEmpty, "\(result.output)")
  }

  @Test(
    "the man pages have the options of the programs' own help, and no others",
    arguments: [
      ("qmp-varlinkd", "man/qmp-varlinkd.8", ["run", "attach", "interface"]), ("qmp-simulator", "man/qmp-simulator.1", []),
      (
        "qmpctl", "man/qmpctl.1",
        [
          "list", "status", "pause", "resume", "reboot", "poweroff", "terminate", "events", "sessions", "monitors", "monitor add",
          "monitor remove", "monitor list", "qmp", "top", "proxy", "storage add", "storage replace", "storage remove", "screenshot",
          "schema", "call",
        ]
      ),
    ])
  func options(program: String, page: String, commands: [String]) async throws {
    let path = productsDirectory.appending(program).string
    var helps = [try await command(path, ["--help"]).output]
    for name in commands { helps.append(try await command(path, ["help"] + name.split(separator: " ").map(String.init)).output) }
    // An option begins a line of the help, behind blanks; its other spellings are behind it, and its value's form behind those.
    let options = Set(
      helps.flatMap { $0.split(separator: "\n") }.flatMap { line -> [String] in
        guard let spellings = line.firstMatch(of: /^ +(-.*?)(  |$)/)?.1 else { return [] }
        return spellings.matches(of: /(?:^|, |\/)(--?[a-z][a-z0-9-]*)/).map { String($0.output.1) }
      })
    #expect(options.count > 5)
    let entries = try Self.file(page).split(separator: "\n").filter { $0.hasPrefix(".It Fl ") }
    let described = Set(entries.flatMap { $0.matches(of: /Fl (-?[a-z][a-z0-9-]*)/).map { "-\($0.output.1)" } })
    // The argument parser's help does not show what every program that uses it can do.
    #expect(described.subtracting(["--generate-completion-script"]) == options)
  }

  @Test("the interfaces' man page has every method")
  func methods() throws {
    let page = try Self.file("man/qmp-varlink.7")
    for interface in [
      "io.systemd.MachineInstance", "io.systemd.QemuMachineInstance", "io.qmpvarlink.Sessions", "io.qmpvarlink.Monitors",
    ] {
      let section = try #require(
        page.components(separatedBy: ".Ss \(interface)\n").dropFirst().first?.components(separatedBy: "\n.S").first)
      let methods = try Self.file("interfaces/\(interface).varlink").matches(of: /\nmethod ([A-Za-z]+)/).map { $0.output.1 }
      #expect(!methods.isEmpty)
      for method in methods { #expect(section.contains("Fn \(method)"), "\(interface).\(method)") }
    }
  }

  @Test("what the README shows happens: every command, and what it prints")
  func readme() async throws {
    let root = try Guest.repositoryRoot()
    let result = try await command(
      "/usr/bin/python3", [root.appending("scripts/check-readme").string, root.appending("README.md").string],
      environment: ["BUILD": productsDirectory.string])
    #expect(result.status == 0, "\(result.output)\(result.error)")
    #expect(result.output.contains(/check-readme: [1-9][0-9]+ commands, all as shown/), "\(result.output)")
  }

  @Test("the libraries' documentation is made, and links to nothing that is not there")
  func libraries() async throws {
    try await withTemporaryDirectory { folder in
      let script = try Guest.repositoryRoot().appending("scripts/make-docs").string
      let result = try await command(script, [productsDirectory.string, folder.string])
      #expect(result.status == 0, "\(result.error)")
      for (library, symbol) in [("QMP", "qmpclient"), ("Simulator", "simulatedqemu"), ("Varlink", "varlinkserver")] {
        let page = folder.appending("\(library)/data/documentation/\(library.lowercased())/\(symbol).json").string
        #expect(FileManager.default.fileExists(atPath: page), "\(page)")
      }
    }
  }

  @Test(
    "links between the documents lead somewhere",
    arguments: ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/threat-model.md", "docs/faults.md"])
  func links(document: String) throws {
    let text = try Self.file(document)
    let folder = try Guest.repositoryRoot().appending(document).removingLastComponent()
    for link in text.matches(of: /\]\(([^)#:]+)(#[^)]*)?\)/) {
      #expect(FileManager.default.fileExists(atPath: folder.appending(String(link.output.1)).string), "\(link.output.0)")
    }
    let headings = Set(
      text.matches(of: /(?m)^#+ (.*)$/).map {
        String($0.output.1).lowercased().filter { $0.isLetter || $0.isNumber || $0 == " " || $0 == "-" }.replacing(" ", with: "-")
      })
    for link in text.matches(of: /\]\(#([^)]*)\)/) { #expect(headings.contains(String(link.output.1)), "\(link.output.0)") }
  }
}
