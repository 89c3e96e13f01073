import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// The simulator plays a QEMU that describes itself as the test says.
@Suite("io.qmpvarlink.QMP, by what QEMU says of itself", .onEventLoop)
struct QMPServiceSchemaTests {
  private static let interface = "io.qmpvarlink.QMP"
  private static let builtins =
    #"{"name":"0","meta-type":"object","members":[]},{"name":"int","meta-type":"builtin","json-type":"int"}"#
  private static let nested = String(repeating: "[", count: 900) + String(repeating: "]", count: 900)

  /// Runs `body` with a daemon whose machine has these replies.
  @EventLoopActor
  private static func withReplies(_ script: [String], _ body: @escaping @EventLoopActor (RunningDaemon) async throws -> Void) async throws {
    try await withTemporaryDirectory { folder in
      let replies = folder.appending("replies")
      try #require(await command("sh", ["-c", "cat >\(replies)"], input: script.joined(separator: "\n")).status == 0)
      let control = folder.appending("control-monitor")
      try await withReadyProcess("qmp-simulator", ["--listen", control.string, "--script", replies.string]) { _ in
        _ = try await withDaemon(["attach", "--machine", "test", "--qmp", "unix:\(control)"], body)
      }
    }
  }

  private static func reply(_ command: String, _ value: String) -> String { #"{"execute":"\#(command)","return":\#(value)}"# }

  @Test(
    "a schema that makes no sense is named in the log, and all else goes on",
    arguments: [
      (#"{}"#, "the schema is not an array"), (#"[{"name":"x","meta-type":"poem"}]"#, "x is of the unknown meta-type poem"),
      (
        #"[{"name":"c","meta-type":"command","arg-type":"9","ret-type":"9"}]"#, "c refers to the type 9, which the schema does not have"
      ),
      ("[\(nested)]", "entry 1 of the schema has no name or no meta-type"),
    ])
  @EventLoopActor
  func hostile(schema: String, reason: String) async throws {
    try await Self.withReplies([Self.reply("query-qmp-schema", schema)]) { daemon in
      let connection = try daemon.connect()
      #expect(daemon.log.contains("\(Self.interface) is not served: \(reason)"), "\(daemon.log)")
      #expect(try await connection.call("io.systemd.MachineInstance.Describe").contains(#""running":true"#))
      #expect(try await connection.call("\(Self.interface).QueryStatus").contains("MethodNotFound"))
      #expect(try await daemon.qmp(#"{"execute":"query-name"}"#).contains("return"))
    }
  }

  @Test("a QEMU that has no query-qmp-schema is served without the interface") @EventLoopActor
  func noSchema() async throws {
    let error = #"{"execute":"query-qmp-schema","error":{"class":"CommandNotFound","desc":"no such command"}}"#
    try await Self.withReplies([error]) { daemon in
      #expect(daemon.log.contains("is not served: query-qmp-schema: no such command (CommandNotFound)"), "\(daemon.log)")
    }
  }

  @Test("a reply that is not of its type is an error that says where, and one that is all of 64 bits is passed on") @EventLoopActor
  func replies() async throws {
    let result = #"{"name":"1","meta-type":"object","members":[{"name":"big-one","type":"int"}]}"#
    let array = #"{"name":"[1]","meta-type":"array","element-type":"1"}"#
    let command = #"{"name":"query-it","meta-type":"command","arg-type":"0","ret-type":"[1]"}"#
    let script = [
      Self.reply("query-qmp-schema", "[\(Self.builtins),\(result),\(array),\(command)]"),
      Self.reply("query-it", #"[{"big-one":18446744073709551615},{"big-one":-9223372036854775808}]"#),
      Self.reply("query-it", #"[{"big-one":1},{"big-one":"text"}]"#), Self.reply("query-it", #"[{"odd":1}]"#),
    ]
    try await Self.withReplies(script) { daemon in
      let connection = try daemon.connect()
      let method = "\(Self.interface).QueryIt"
      let big = #"{"parameters":{"return":[{"bigOne":18446744073709551615},{"bigOne":-9223372036854775808}]}}"#
      #expect(try await connection.call(method) == big)
      #expect(
        try await connection.call(method).contains(#"BadReply","parameters":{"command":"query-it","reason":"[1].big-one: an integer"#))
      #expect(try await connection.call(method).contains("there is no such member"))
      // What no method is for can be executed nevertheless.
      #expect(try await connection.call("\(Self.interface).Execute", #"{"command":"query-name"}"#).contains("return"))
    }
  }
}
