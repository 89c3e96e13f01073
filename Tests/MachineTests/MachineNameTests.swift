import Testing

@testable import Machine

@Suite struct MachineNameTests {
  @Test(
    "a name is what a host could be called",
    arguments: ["a", "A9", "0", "web-1.example.org", "a-", "a.b-c", String(repeating: "x", count: 64)])
  func accepted(name: String) {
    #expect(MachineName(name)?.description == name)
  }

  @Test(
    "anything else is none",
    arguments: [
      "", ".", "..", "-a", ".a", "a..b", "a/b", "../a", "a b", "a_b", "a\n", "a\r\n", "a\0b", "ä", "a\u{301}", "٣", "a:b", "a%b",
      "a@b",
      String(repeating: "x", count: 65),
    ])
  func refused(name: String) {
    #expect(MachineName(name) == nil)
  }
}
