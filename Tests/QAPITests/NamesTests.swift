import Testing

@testable import QAPI

@Suite struct NamesTests {
  @Test(
    "members and enum values",
    arguments: [
      ("qom-type", "qomType"), ("x-foo", "xFoo"), ("__org.qemu_x-foo", "orgQemuXFoo"), ("tray_open", "trayOpen"), ("id", "id"),
      ("3des", "n3des"), ("0", "n0"), ("9p-proxy", "n9pProxy"), ("UUID", "UUID"), ("legacyESX", "legacyESX"),
      ("l2-cache-size", "l2CacheSize"),
      ("-", "n"), ("_", "n"), ("a--b", "aB"), ("a-", "a"), ("foo-9p", "foo9p"), ("object", "object"),
    ])
  func fields(name: String, expected: String) { #expect(Names.field(name) == expected) }

  @Test(
    "commands",
    arguments: [
      ("query-block", "QueryBlock"), ("device_add", "DeviceAdd"), ("x-exit-preconfig", "XExitPreconfig"), ("quit", "Quit"),
      ("qmp_capabilities", "QmpCapabilities"), ("__com.redhat_drive-mirror", "ComRedhatDriveMirror"), ("3d", "N3d"), ("--", "N"),
    ])
  func symbols(name: String, expected: String) { #expect(Names.symbol(name) == expected) }

  @Test("events", arguments: [("BLOCK_JOB_COMPLETED", "blockJobCompleted"), ("STOP", "stop"), ("9P_UP", "n9pUp")])
  func events(name: String, expected: String) { #expect(Names.event(name) == expected) }

  @Test("of names that become the same, each gets one of its own, also where the numbered one is taken")
  func clashes() {
    var fields = NameScope()
    #expect(["a_2", "a", "a", "a", "b", "a"].map { fields.claim($0) } == ["a_2", "a", "a_3", "a_4", "b", "a_5"])
    var symbols = NameScope(separator: "")
    #expect(["A", "A", "A2", "A"].map { symbols.claim($0) } == ["A", "A2", "A22", "A3"])
  }

  @Test("what the rules cannot tell a reader is said", arguments: [("qomType", "qom-type", true), ("trayOpen", "tray_open", false)])
  func obvious(field: String, name: String, isObvious: Bool) { #expect(Names.isObvious(field, for: name) == isObvious) }
}
