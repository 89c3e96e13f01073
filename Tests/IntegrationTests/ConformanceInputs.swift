/// What QEMU and the simulator are asked.
enum ConformanceInputs {
  /// Each is sent on a connection of its own.
  static let all: [[UInt8]] = texts.map { Array($0.utf8) } + bytes

  private static let texts =
    [
      // The malformed inputs of QEMU's own test (tests/qtest/qmp-test.c).
      "{]", "{\u{1}", "{'execute': 'nonexistent', 'id':'\n'", #"{"execute": %p}"#, "null", "{}", "{'execute': true}",
      "{'execute': 'no-such-cmd', 'arguments': []}", "{'execute': 'no-such-cmd', 'extra': true}",
      // Ids of every type.
      "1", "-1.5e3", "0.1", "1.0", "1e300", "1e22", "1e-7", "1e400", "-0", "-0.0", "18446744073709551615", "18446744073709551616",
      "-9223372036854775808", "-9223372036854775809", #""a b""#, "null", "true", #"[1, {"a": [ ]}]"#,
      #"{"z":1,"b": 1, "a": {}, "cc":2,"q":[],"":0,"aa":1,"ab":2,"ba":3}"#, #""\u00e9\n\"\\\u0000\u0001\u007f\ud83d\ude00\/\b\f\r\t""#,
      "\"\u{E9}\u{7F}\u{1F600}\"", "'a\"b\\''", "[]", "{}",
    ].enumerated().map { $0.offset < 9 ? $0.element : #"{"execute": "query-name", "id": \#($0.element)}"# } + [
      #"{"id": 7, "execute": "query-name"}"#, #"{"execute": "query-name"}"#, #"{"execute": "nope", "id": {}}"#, #"{"execute": "nope"}"#,
      // Forms of commands.
      #"{"execute": "query-name", "arguments": {"x": 1}}"#, #"{"execute": "query-name", "arguments": {}, "control": {}, "id": 1}"#,
      #"{"execute": 1}"#, #"{"execute": ""}"#, #"{"execute": "x y"}"#, #"{"a": 1, "b": 2}"#, #"{"execute": "query-name", "a": 1, "b": 2}"#,
      #"{"exec-oob": "query-status"}"#, #"{"exec-oob": 1}"#, #"{"exec-oob": "migrate-pause", "id": 1}"#,
      #"{"execute": "query-name", "exec-oob": "query-name"}"#, #"{"execute": "query-name", "id": 1, "id": 2}"#,
      #"{"execute": "query-name", "a" 1}"#, #"{"execute": "query-name" } }"#,
      // What is no command.
      "nonsense ", "garbage\n\n  garbage ", "[1, 2]", "12 ", #""text""#, "'x'", "{ \"a\" : \n\n [ }", "@", "\\", "TRUE",
      #"@abc {"execute":"query-name"}"# + "\n", "@abc\n" + #"{"execute":"query-name"}"#, "01 ", "1a ", "-x", "1.x", "1.5ex", "0e1 ", "%d",
      "%lld", "%z ",
      "{,}", #"{"a":}"#, #"{"a"}"#, #"{"a":1,}"#, "[1,]", "[,]", "[1 2]", #"{"a":1 "b":2}"#, "{1:2}", "}", "]", ":", ",", "{}}", "[}]",
      "truefalse",
      "[true,nul]", #"{"execute":"query-name","# + "\t\"id\":\t\"a\tb\"}\n",
      // Strings that are none.
      #"{"execute": "query-name", "id": "\ud800"}"#, #"{"execute": "query-name", "id": "\ud800x"}"#,
      #"{"execute": "query-name", "id": "\ud800\u0041"}"#, #"{"execute": "query-name", "id": "\udc00"}"#,
      #"{"execute": "query-name", "id": "\u12"}"#,
      #"{"execute": "query-name", "id": "\u12zz"}"#, #"{"execute": "query-name", "id": "\uffff \ufdd0"}"#,
      #"{"execute": "query-name", "id": "\q"}"#,
      // Limits.
      String(repeating: "[", count: 1024) + String(repeating: "]", count: 1024),
      String(repeating: "[", count: 1025) + String(repeating: "]", count: 1025), String(repeating: "a", count: 2000) + " ",
      "\"" + String(repeating: "a", count: 2000) + "\u{1}",
    ]

  private static let bytes: [[UInt8]] =
    [
      [UInt8(ascii: "{"), 0xFF], [0xFF, 0xFF], Array("{'bad ".utf8) + [0xFF], [0], [0xEF, 0xBB, 0xBF],
    ]
    + [
      [0xC3, 0x28], [0xED, 0xA0, 0x80], [0xC0, 0x80], [0xEF, 0xBF, 0xBF], [0x7F, 0xFE], [0xF0, 0x9F, 0x98], [0xF8, 0x88, 0x80, 0x80, 0x80],
    ].map {
      Array(#"{"execute": "query-name", "id": ""#.utf8) + $0 + Array(#""}"#.utf8)
    }

  /// What random input is made of.
  static let tokens: [[UInt8]] =
    [
      "{", "}", "[", "]", ":", ",", #""a""#, "'b'", #""execute""#, #""query-name""#, #""id""#, "1", "-2.5e3", "0", "true", "null", "nope",
      " ", "\n", "\t",
      "\r\n", "\"", "'", "\\", "@", "%d", "\0", "\u{E9}", #""\u00e9""#, #""\ud83d\ude00""#, #""\ud83d""#, #"{"execute":"query-name"}"#,
      #"{"execute":"query-name","id":"#, "-", "1e5", "01", "1.", #""arguments""#, "{}", "[]", "a", "E", #""x\/\b\f\n""#,
      "123456789012345678901234567890", "9223372036854775808", #""exec-oob""#, #""migrate-pause""#,
    ].map { Array($0.utf8) } + [[0xFF], [0xFE], [0xC3], [0xF0, 0x9F, 0x98, 0x80]]

  /// Executed in this order on one connection after the other; FOLDER is a folder of the server's own.
  static let objects: [String] =
    // Machine.
    [
      "query-version", "query-name", "query-status", "query-chardev", "query-fdsets", "query-yank", "stop", "stop", "query-status", "cont",
      "cont",
      "system_reset", "system_powerdown",
    ].map { command($0) }
    // Chardevs.
    + [
      #""id":"n1","backend":\#(null)"#, #""id":"n1","backend":\#(null)"#,
      #""id":"x","backend":\#(socket(fd("nofd"), ",\"server\":false"))"#,
      #""id":"x","backend":\#(socket(fd("nofd")))"#, #""id":"x","backend":\#(socket(unix("FOLDER/no/x"), ",\"wait\":false"))"#,
      #""id":"x","backend":\#(socket(unix("FOLDER/no"), ",\"server\":false"))"#,
      #""id":"u1","backend":\#(socket(unix("FOLDER/u1"), ",\"wait\":false"))"#,
      #""id":"u2","backend":\#(socket(unix("FOLDER/u2"), ",\"server\":true,\"wait\":false"))"#,
      #""id":"x","backend":\#(socket(unix("/" + String(repeating: "x", count: 120)), ",\"wait\":false"))"#, #""id":"","backend":\#(null)"#,
      #""id":"q""#,
      #""backend":\#(null)"#, #""id":"q","backend":{"type":"bogus","data":{}}"#, #""id":"q","backend":{"data":{}}"#,
      #""id":"q","backend":{"type":"socket"}"#,
      #""id":"q","backend":{"type":"socket","data":{}}"#, #""id":"q","backend":\#(socket(#"{"type":"x"}"#))"#,
      #""id":"q","backend":\#(socket(#"{"type":"unix"}"#))"#, #""id":"q","backend":\#(socket(#"{"type":"unix","data":{}}"#))"#,
      #""id":"q","backend":\#(socket(#"{"type":"unix","data":{"path":1}}"#))"#, #""id":"q","backend":{"type":"null","data":{"x":1}}"#,
      #""id":"q","backend":\#(null),"y":1"#, #""id":1,"backend":\#(null)"#, #""id":"q","backend":[]"#,
      #""id":"q","backend":\#(socket(unix("FOLDER/q"), ",\"wait\":1"))"#,
      #""id":"q","backend":\#(socket(unix("FOLDER/q"), ",\"reconnect-ms\":\"\""))"#,
    ].map { command("chardev-add", $0) }
    + [command("query-chardev"), command("chardev-remove", #""id":"""#), command("chardev-remove", #""id":"nope""#), command("query-yank")]
    // Monitors.
    + [
      #""id":"m1","chardev":"n1","qom-type":"monitor-qmp""#, #""id":"m1","chardev":"n1","qom-type":"monitor-qmp""#,
      #""id":"m1","chardev":"u1","qom-type":"monitor-qmp""#, #""id":"m2","chardev":"n1","qom-type":"monitor-qmp""#,
      #""id":"m2","chardev":"nope","qom-type":"monitor-qmp""#, #""id":"m2","qom-type":"monitor-qmp""#,
      #""id":"m2","chardev":"u1","close-action":"bogus","qom-type":"monitor-qmp""#, #""id":"2m","chardev":"u1","qom-type":"monitor-qmp""#,
      #""id":"","chardev":"u1","qom-type":"monitor-qmp""#, #""id":"m\u00e9","chardev":"u1","qom-type":"monitor-qmp""#,
      #""id":"m2","chardev":"u1","qom-type":"monitor""#, #""id":"m2","chardev":"u1","qom-type":"bogus""#,
      #""chardev":"u1","qom-type":"monitor-qmp""#,
      #""id":"m2","chardev":"u1""#, #""id":"m2","chardev":"u1","x":1,"qom-type":"monitor-qmp""#,
      #""id":"m2","chardev":"u1","pretty":"x","qom-type":"monitor-qmp""#,
      #""id":"m2","chardev":"u1","close-action":1,"qom-type":"monitor-qmp""#,
      #""id":"m2","chardev":1,"qom-type":"monitor-qmp""#, #""id":1,"chardev":"u1","qom-type":"monitor-qmp""#,
      #""id":"h1","chardev":"u1","qom-type":"monitor-hmp""#, #""id":"h2","chardev":"u2","qom-type":"monitor-hmp","readline":"x""#,
    ].map { command("object-add", $0) }
    + ["h1", "nope", "", "compat_monitor0"].map { command("object-del", #""id":"\#($0)""#) } + [command("object-del")]
    + ["n1", "u1", "compat_monitor0"].map { command("chardev-remove", #""id":"\#($0)""#) }
    // The tree of objects.
    + ["/objects", "/objects/m1", "/objects/h1", "/chardevs", "/chardevs/n1", "/nope", "m1", "/objects/nope"].map {
      command("qom-list", #""path":"\#($0)""#)
    }
    + [command("query-chardev")]
    + ["chardev", "pretty", "close-action", "type", "nope", "readline"].flatMap { property in
      ["/objects/m1", "/objects/h1"].map { command("qom-get", #""path":"\#($0)","property":"\#(property)""#) }
    }
    + [
      #""path":"/objects/nope","property":"type""#, #""path":"objects/m1","property":"type""#, #""path":"m1","property":"chardev""#,
      #""path":"/objects","property":"m1""#,
    ].map { command("qom-get", $0) }
    + [#"["/objects/m1"]"#, #"["/objects/m1","/objects/h1"]"#, #"["/objects/nope"]"#, "[]", #"["/chardevs/n1"]"#].map {
      command("qom-list-get", #""paths":\#($0)"#)
    }
    + [
      #""close-action","value":"delete""#, #""close-action","value":"x""#, #""chardev","value":"x""#, #""pretty","value":true"#,
      #""pretty","value":1"#,
      #""nope","value":1"#, #""pretty""#,
    ].map { command("qom-set", #""path":"/objects/m1","property":\#($0)"#) }
    + [command("qom-list-get", #""paths":["/objects/m1"]"#)]
    + [
      #""implements":"monitor-qmp""#, #""implements":"monitor""#, #""implements":"monitor","abstract":true"#, #""implements":"nope""#,
      #""implements":"iothread""#,
    ].map { command("qom-list-types", $0) }
    // The end of it all.
    + [command("object-del", #""id":"m1""#), command("chardev-remove", #""id":"n1""#), command("qom-list", #""path":"/objects""#)]
    + [command("object-add", #""qom-type":"iothread","id":"t""#), command("object-del", #""id":"t""#), command("object-del", #""id":"t""#)]
    // Descriptors that are not there, and migration that is not under way.
    + [
      command("getfd", #""fdname":"a""#), command("getfd"), command("getfd", #""fdname":1"#), command("getfd", #""fdname":"x","y":1"#),
      command("closefd", #""fdname":"a""#), command("add-fd"), command("remove-fd", #""fdset-id":7"#),
      command("remove-fd", #""fdset-id":7,"fd":3"#),
      command("remove-fd", #""fdset-id":1.5"#), command("migrate-pause"), command("migrate-recover"),
      command("migrate-recover", #""uri":"x""#),
      command("yank"), command("yank", #""instances":[]"#), command("query-commands", #""x":1"#),
    ]

  private static let null = #"{"type":"null","data":{}}"#
  private static func fd(_ name: String) -> String { #"{"type":"fd","data":{"str":"\#(name)"}}"# }
  private static func unix(_ path: String) -> String { #"{"type":"unix","data":{"path":"\#(path)"}}"# }
  private static func socket(_ address: String, _ options: String = "") -> String {
    #"{"type":"socket","data":{"addr":\#(address)\#(options)}}"#
  }
  private static func command(_ name: String, _ arguments: String = "") -> String { #"{"execute":"\#(name)","arguments":{\#(arguments)}}"# }
}
