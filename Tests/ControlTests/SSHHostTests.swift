import Testing

@testable import Control

@Suite struct SSHHostTests {
  @Test(
    "what would be an option of ssh, or no name, is no host",
    arguments: ["", "-oProxyCommand=x", "-", "a b", "a\nb", "a\u{7F}", String(repeating: "a", count: 513)])
  func refused(name: String) { #expect(SSHHost(name) == nil) }

  @Test("what ssh takes for a host is one", arguments: ["a", "me@host.example", "ssh://me@host:22", "[::1]", "höst"])
  func accepted(name: String) { #expect(SSHHost(name)?.name == name) }

  @Test(
    "the other side's shell takes words as they are",
    arguments: [
      ("plain", "plain"), ("/a/b-c_d.e=f:g@h,i+1", "/a/b-c_d.e=f:g@h,i+1"), ("", "''"), ("a b", "'a b'"), ("it's", #"'it'\''s'"#),
      ("$(x);`y`\n", "'$(x);`y`\n'"), ("~", "'~'"), ("*", "'*'"), ("é", "'é'"),
    ])
  func quoting(word: String, quoted: String) { #expect(SSHHost.quoted(word) == quoted) }

  @Test("the machine has less time than the way to it")
  func timeouts() {
    #expect(SSHHost.timeout(within: .seconds(20)) == "--timeout=15" && SSHHost.timeout(within: .seconds(1)) == "--timeout=1")
  }

  @Test("names of errors are words")
  func words() {
    #expect(ControlError.words(of: "NoSuchStorage") == "no such storage" && ControlError.words(of: "QMPError") == "qmperror")
  }
}
