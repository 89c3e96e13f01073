import Bridge
import Glibc
import Machine
import SystemPackage
import TestSupport
import Testing

@testable import qmp_varlinkd

@Suite struct RuntimeDirectoryTests {
  private let folder: TemporaryFolder
  private let machine: MachineName

  init() throws {
    folder = try TemporaryFolder()
    machine = try #require(MachineName("web"))
  }

  struct Location: CustomTestStringConvertible {
    let testDescription: String
    var option: String?
    var environment: [String: String] = [:]
    var scope = RuntimeScope.user
    var path: String?
    var isOurs = false
  }

  static let locations = [
    Location(testDescription: "root's own", scope: .system, path: "/run/qmp-varlink/web", isOurs: true),
    Location(
      testDescription: "root does not use XDG_RUNTIME_DIR", environment: ["XDG_RUNTIME_DIR": "/run/user/1"], scope: .system,
      path: "/run/qmp-varlink/web", isOurs: true),
    Location(
      testDescription: "a user's own", environment: ["XDG_RUNTIME_DIR": "/run/user/1"], path: "/run/user/1/qmp-varlink/web", isOurs: true),
    Location(testDescription: "a user without XDG_RUNTIME_DIR"),
    Location(testDescription: "a user with an empty one", environment: ["XDG_RUNTIME_DIR": ""]),
    Location(
      testDescription: "the service manager's", environment: ["RUNTIME_DIRECTORY": "/run/a", "XDG_RUNTIME_DIR": "/x"], path: "/run/a"),
    Location(testDescription: "the first of several", environment: ["RUNTIME_DIRECTORY": "/run/a:/run/b"], scope: .system, path: "/run/a"),
    Location(
      testDescription: "an empty one counts as none", environment: ["RUNTIME_DIRECTORY": ""], scope: .system, path: "/run/qmp-varlink/web",
      isOurs: true),
    Location(testDescription: "the option comes first", option: "/d", environment: ["RUNTIME_DIRECTORY": "/run/a"], path: "/d"),
    Location(testDescription: "the option, relative", option: "d/e", path: "d/e"),
  ]

  @Test("the folder is where the command line says", arguments: locations)
  func location(_ test: Location) {
    do throws(RuntimeDirectory.Failure) {
      let found = try RuntimeDirectory.location(
        machine: machine, option: test.option.map { FilePath($0) }, environment: { test.environment[$0] }, scope: test.scope)
      #expect(found.path.string == test.path)
      #expect(found.isOurs == test.isOurs)
    } catch {
      #expect(test.path == nil)
      #expect("\(error)".contains("XDG_RUNTIME_DIR is not set"))
    }
  }

  @Test("a folder is held by one at a time")
  func claim() throws {
    let path = folder.path.appending("d")
    let first = try RuntimeDirectory((path, true), machine: machine)
    #expect(refusal(path) == "machine 'web' is served already: another qmp-varlinkd holds \(path)")
    #expect(refusal(path) != nil)
    first.remove()
    let second = try RuntimeDirectory((path, true), machine: machine)
    second.remove()
  }

  @Test("a claim ends with its holder, however that ends")
  func abandoned() throws {
    let path = folder.path.appending("d")
    do { _ = try RuntimeDirectory((path, true), machine: machine) }
    #expect(refusal(path) == nil)
  }

  @Test("missing parents are made")
  func parents() throws {
    let path = folder.path.appending("a/b/c")
    let directory = try RuntimeDirectory((path, true), machine: machine)
    let socket = directory.controlSocket
    #expect(socket == path.appending("control"))
    #expect(exists(path))
    directory.remove()
    #expect(!exists(path) && exists(folder.path.appending("a/b")))
  }

  @Test("only what is ours is removed: the socket, and a folder that we made", arguments: [true, false])
  func removal(isOurs: Bool) throws {
    let path = folder.path.appending("d")
    let directory = try RuntimeDirectory((path, isOurs), machine: machine)
    try folder.file("d/control", [])
    directory.remove()
    #expect(!exists(path.appending("control")))
    #expect(exists(path) == !isOurs)
  }

  @Test("a folder that holds something else stays")
  func somethingElse() throws {
    let path = folder.path.appending("d")
    let directory = try RuntimeDirectory((path, true), machine: machine)
    try folder.file("d/else", [])
    directory.remove()
    #expect(exists(path.appending("else")))
  }

  @Test("what cannot be a folder is refused with the reason")
  func notAFolder() throws {
    let file = try folder.file("plain", [])
    #expect(refusal(file)?.contains("cannot open \(file)") == true)
    #expect(refusal(file.appending("below"))?.contains("cannot make \(file.appending("below"))") == true)
  }

  private func refusal(_ path: FilePath) -> String? {
    do throws(RuntimeDirectory.Failure) {
      _ = try RuntimeDirectory((path, false), machine: machine)
      return nil
    } catch {
      return "\(error)"
    }
  }

  private func exists(_ path: FilePath) -> Bool { access(path.string, F_OK) == 0 }
}
