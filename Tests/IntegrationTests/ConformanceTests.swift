import Foundation
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// A session against a monitor that QEMU serves directly: the same bytes in, the same bytes out, timestamps aside.
@Suite("a session answers as a monitor of one's own does", .onEventLoop)
struct ConformanceTests {
  /// Each is sent before and after negotiation, and followed by a command that shows that QEMU has recovered.
  private static let inputs: [[UInt8]] =
    [
      // The malformed inputs of QEMU's own test (tests/qtest/qmp-test.c).
      "{]", "{\u{1}", "{'execute': 'nonexistent', 'id':'\n'", #"{"execute": %p}"#, "null", "{}", "{'execute': true}",
      "{'execute': 'no-such-cmd', 'arguments': []}", "{'execute': 'no-such-cmd', 'extra': true}",
      // The capabilities.
      #"{"execute": "qmp_capabilities", "arguments": {"enable": ["nope"]}}"#, #"{"execute": "qmp_capabilities", "id": "again"}"#,
      #"{"execute": "qmp_capabilities", "arguments": {"enable": null}}"#,
      // Ids of every type.
      #"{"execute": "query-name", "id": 1}"#, #"{"execute": "query-name", "id": -1.5e3}"#, #"{"execute": "query-name", "id": "a b"}"#,
      #"{"execute": "query-name", "id": null}"#, #"{"execute": "query-name", "id": true}"#,
      #"{"execute": "query-name", "id": [1, {"a": [ ]}]}"#,
      #"{"execute": "query-name", "id": {"b": 1, "a": {}}}"#, #"{"execute": "query-name", "id": "\u00e9\n\"\\"}"#,
      "{\"execute\": \"query-name\", \"id\": \"\u{E9}\"}",
      #"{"execute": "query-name", "id": 18446744073709551615}"#, #"{"execute": "query-name", "id": 0e1}"#,
      #"{"execute": "nope", "id": {}}"#,
      #"{"id": 7, "execute": "query-name"}"#, #"{"execute": "query-name"}"#,
      // What is refused, one way or the other.
      #"{"execute": "query-name", "arguments": {"x": 1}}"#, #"{"execute": "query-name", "id": 1, "id": 2}"#,
      #"{"execute": "query-name", "a" 1}"#,
      #"{"execute": 1}"#, #"{"execute": "query-name", "extra": 1}"#, #"{"exec-oob": "query-status"}"#,
      #"{"exec-oob": "migrate-pause", "id": 1}"#,
      #"{"execute": "query-name", "exec-oob": "query-name"}"#, "nonsense ", "garbage\n\n  garbage ", "[1, 2]", "12 ", #""text""#,
      "{ \"a\" : \n\n [ }", "@", "\\",
      "'x'", #"{"execute": "query-name" } }"#, #"{"execute": "device-list-properties", "arguments": {"typename": "nope"}}"#,
      #"{"execute": "query-name", "id": "\ud800"}"#, #"{"execute": "query-name", "id": "\q"}"#,
    ].map { Array($0.utf8) } + [
      [UInt8(ascii: "{"), 0xFF], Array("{'bad ".utf8) + [0xFF],
      Array(#"{"execute": "query-name", "id": ""#.utf8) + [0xC3, 0x28] + Array(#""}"#.utf8),
    ]

  private static let recovered = "\n" + #"{"execute": "no-such-cmd", "id": "recovered"}"#
  /// Brings any state of QEMU's lexer to an end, so that every conversation has one.
  private static let end = [0xFF] + Array(#"{"execute": "no-such-cmd", "id": "the end"}"#.utf8)

  @Test(
    "malformed input, capabilities, ids: byte for byte the same, before and after negotiation, with and without OOB",
    arguments: SessionKind.allCases) @EventLoopActor
  func table(kind: SessionKind) async throws {
    try await kind.withDaemon { daemon in
      let plain = ["", #"{"execute": "qmp_capabilities"}"# + "\r\n"]
      // Those that share have no OOB.
      for negotiation in kind.isShared ? plain : plain + [#"{"execute":"qmp_capabilities", "arguments": {"enable": ["oob"]}}"#] {
        // What the simulator is held against says more about how values are spelled and framed.
        for input in Self.inputs + (kind.isShared ? ConformanceInputs.all : []) {
          let bytes = Array(negotiation.utf8) + input + Array(Self.recovered.utf8) + Self.end
          try await DirectMonitor(daemon).compare(bytes)
        }
      }
    }
  }

  @Test("random conversations with random white space in random chunks", arguments: SessionKind.allCases, [UInt64(1), 2, 3])
  @EventLoopActor
  func random(kind: SessionKind, seed: UInt64) async throws {
    try await kind.withDaemon { daemon in
      let direct = DirectMonitor(daemon)
      var random = SplitMix(seed: seed)
      let wellFormed = [
        #"{"execute":"query-name","id":1}"#, #"{"execute":"nope"}"#, #"{"execute":"query-status","arguments":{}}"#,
        #"{"id":[1,2,{"a":"b c"}],"execute":"query-version"}"#,
        "{}", #"{"execute":"query-name","id":"\u0041"}"#,
      ]
      for _ in 0..<40 {
        var bytes = Array(#"{"execute":"qmp_capabilities"}"#.utf8)
        for _ in 0..<Int.random(in: 1..<6, using: &random) {
          bytes += Array(Self.spaced(wellFormed.pick(&random), &random).utf8)
        }
        if Bool.random(using: &random) { bytes += Self.inputs.pick(&random) }
        bytes += Array(Self.recovered.utf8) + Self.end
        try await direct.compare(bytes, chunks: Int.random(in: 1..<50, using: &random))
      }
    }
  }

  @Test("random tokens: what QEMU's parser would say is said in its stead", arguments: SessionKind.sharing, [UInt64(1), 2, 3])
  @EventLoopActor
  func tokens(kind: SessionKind, seed: UInt64) async throws {
    try await kind.withDaemon { daemon in
      let direct = DirectMonitor(daemon)
      var random = SplitMix(seed: seed)
      for _ in 0..<80 {
        var bytes = Bool.random(using: &random) ? Array(#"{"execute":"qmp_capabilities"}"#.utf8) : []
        for _ in 0..<Int.random(in: 1..<60, using: &random) { bytes += ConformanceInputs.tokens.pick(&random) }
        bytes += Array(Self.recovered.utf8) + Self.end
        try await direct.compare(bytes, chunks: Int.random(in: 1..<50, using: &random))
      }
    }
  }

  /// The text with white space at random places outside its strings.
  private static func spaced(_ text: String, _ random: inout SplitMix) -> String {
    var result = ""
    var inString = false
    for character in text {
      let mayHaveSpace = !inString && "{}[]:,\"".contains(character)
      if mayHaveSpace, Int.random(in: 0..<3, using: &random) == 0 { result += [" ", "\n", "\r\n", "\t ", "   "].pick(&random) }
      if character == "\"" { inString.toggle() }
      result.append(character)
    }
    return result + ["", " ", "\r\n", "\n\n"].pick(&random)
  }

  @Test("an out-of-band command overtakes one that blocks") @EventLoopActor
  func outOfBand() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let fifo = daemon.directory.appending("fifo")
      try #require(await command("mkfifo", [fifo.string]).status == 0)
      let session = try await daemon.acquireQMP()
      try await session.write(#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#)
      // Opening the FIFO blocks QEMU's main thread until somebody writes.
      let node = #"{"driver": "file", "node-name": "blocked", "filename": "\#(fifo)", "read-only": true}"#
      try await session.write(#"{"execute": "blockdev-add", "id": "in-band", "arguments": \#(node)}"#)
      try await session.write(#"{"exec-oob": "migrate-pause", "id": "out-of-band"}"#)
      try await session.wait(for: #""id": "out-of-band""#)
      #expect(!session.text.contains("in-band\""))
      let writer = try FileDescriptor.open(fifo, .writeOnly)
      defer { try? writer.close() }
      try await session.wait(for: #""id": "in-band""#)
    }
  }

  @Test("descriptors pass: getfd, add-fd and a blockdev-add that uses it; what is left over is closed in QEMU") @EventLoopActor
  func descriptors() async throws {
    _ = try await withDaemon(bareMachine) { daemon in
      let qemu = try daemon.qemu()
      let image = daemon.directory.appending("image")
      try #require(await command("truncate", ["-s", "1M", image.string]).status == 0)
      _ = try await daemon.qmp(#"{"execute":"query-name"}"#)
      let before = RunningDaemon.descriptorCount(of: qemu)
      for round in 0..<5 {
        let session = try await daemon.acquireQMP()
        try await session.write(#"{"execute": "qmp_capabilities"}"#)
        let file = try FileDescriptor.open(image, .readWrite)
        try await session.write(#"{"execute": "getfd", "arguments": {"fdname": "left-over"}, "id": "getfd"}"#, descriptors: [file.rawValue])
        try await session.wait(for: #"{"return": {}, "id": "getfd"}"#)
        // The descriptor and half of the command first.
        try await session.write(#"{"execute": "add-fd", "argum"#, descriptors: [file.rawValue])
        try await session.write(#"ents": {"fdset-id": 7}, "id": "add-fd"}"#)
        try await session.wait(for: #""id": "add-fd"}"#)
        #expect(session.text.contains(#""fdset-id": 7"#))
        try file.close()
        let node = #"{"driver": "file", "node-name": "passed", "filename": "/dev/fdset/7"}"#
        try await session.write(#"{"execute": "blockdev-add", "arguments": \#(node), "id": "blockdev-add"}"#)
        try await session.wait(for: #"{"return": {}, "id": "blockdev-add"}"#)
        try await session.write(#"{"execute": "blockdev-del", "arguments": {"node-name": "passed"}, "id": "del"}"#)
        try await session.write(#"{"execute": "remove-fd", "arguments": {"fdset-id": 7}, "id": "remove-fd"}"#)
        try await session.wait(for: #"{"return": {}, "id": "remove-fd"}"#)
        if round.isMultiple(of: 2) {
          session.close()
        } else {
          session.endWriting()
          try await session.waitForEnd()
          #expect(session.text.hasSuffix("{\"return\": {}, \"id\": \"remove-fd\"}\r\n"), "of the closing nothing is seen")
        }
      }
      try await StormTests.quiet(daemon)
      #expect(RunningDaemon.descriptorCount(of: qemu) == before)
    }
  }
}

/// A monitor that QEMU serves on a UNIX socket, without us in between.
@EventLoopActor
private struct DirectMonitor {
  let daemon: SharingDaemon

  init(_ daemon: SharingDaemon) { self.daemon = daemon }

  /// Has the same conversation with both.
  func compare(_ bytes: [UInt8], chunks: Int? = nil) async throws {
    let direct = try Peer(.connected(to: daemon.direct))
    // One at a time is served; the greeting says that it is this one's turn.
    try await direct.wait(for: "QMP")
    let session = try await daemon.acquire()
    let reply = session.received.firstIndex(of: 0).map { $0 + 1 } ?? 0
    for start in stride(from: 0, to: bytes.count, by: chunks ?? bytes.count) {
      let chunk = bytes[start..<min(start + (chunks ?? bytes.count), bytes.count)]
      try await session.write(chunk)
      try await direct.write(chunk)
    }
    for peer in [session, direct] { try await peer.wait(for: #""id": "the end""#) }
    try await session.wait("the last line's end") { $0.received.last == UInt8(ascii: "\n") }
    try await direct.wait("the last line's end") { $0.received.last == UInt8(ascii: "\n") }
    let input = String(decoding: bytes, as: UTF8.self)
    // Those that share are not offered OOB; nothing else differs.
    let expected = daemon.kind.isShared ? direct.text.replacing(#""capabilities": ["oob"]"#, with: #""capabilities": []"#) : direct.text
    #expect(String(decoding: session.received[reply...], as: UTF8.self) == expected, "to \(input)")
    direct.close()
    session.close()
  }
}
