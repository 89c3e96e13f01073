import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// The simulator against QEMU: the same bytes in, the same bytes out.
///
/// Made equal before comparing: the time of events; the order of the children of a container and of the chardevs, which in QEMU is that
/// of a hash table and which no client can rely on; numbers of descriptors.
///
/// Not compared, because the simulator has its own answer on purpose:
/// - lists of everything that QEMU has (query-commands, query-qmp-schema, all types, the root of the object tree);
/// - which of several unexpected arguments is complained about: again a hash table's order;
/// - many commands at once with OOB enabled: if the last byte of one thing is the first of the next when seven wait already, QEMU 11.1.2
///   aborts (`Assertion mon->qmp_requests->length < QMP_REQ_QUEUE_LEN_MAX`).
@Suite("the simulator answers as QEMU does", .onEventLoop, .ignoringBrokenPipes)
struct SimulatorConformanceTests {
  private static let negotiate = #"{"execute": "qmp_capabilities"}"#
  private static let negotiations = [
    "", negotiate, negotiate + "\r\n\n ", #"{"execute":"qmp_capabilities", "arguments": {"enable": ["oob"]}}"#,
  ]

  @Test("malformed input, forms of commands, ids: before and after negotiation, with and without OOB", arguments: negotiations)
  @EventLoopActor
  func table(negotiation: String) async throws {
    try await withBoth { both in
      for input in ConformanceInputs.all { try await both.compare(Array(negotiation.utf8) + input) }
      // In small pieces too.
      for input in ConformanceInputs.all { try await both.compare(Array(negotiation.utf8) + input, piece: 3) }
    }
  }

  @Test("capabilities") @EventLoopActor
  func capabilities() async throws {
    try await withBoth { both in
      for argument in [#"["nope"]"#, "null", "[null]", #""oob""#, "{}", "[]", #"["oob","oob"]"#, #"["oob","nope"]"#, "[1]"] {
        let enable = #"{"execute": "qmp_capabilities", "arguments": {"enable": \#(argument)}}"#
        // No command in between, which the other would overtake or not.
        try await both.compare(Array((enable + #"{"exec-oob": "query-yank", "id": 1}"#).utf8))
        try await both.compare(Array((Self.negotiate + enable).utf8))
      }
    }
  }

  @Test("random tokens in random order", arguments: [UInt64(1), 2, 3]) @EventLoopActor
  func random(seed: UInt64) async throws {
    var random = SplitMix(seed: seed)
    var inputs: [[UInt8]] = []
    for _ in 0..<300 {
      let count = Int.random(in: 1..<25, using: &random)
      inputs.append((0..<count).flatMap { _ in ConformanceInputs.tokens.pick(&random) })
    }
    try await withBoth { [inputs] both in
      for (index, input) in inputs.enumerated() {
        try await both.compare(Array((index.isMultiple(of: 4) ? "" : Self.negotiate).utf8) + input)
      }
    }
  }

  @Test("OOB: which commands, and the errors of others") @EventLoopActor
  func outOfBand() async throws {
    try await withBoth { both in
      for command in [
        #"{"exec-oob": "query-name", "id": 1}"#, #"{"exec-oob": "nope", "id": 1}"#, #"{"exec-oob": "migrate-pause", "id": {}}"#,
        #"{"exec-oob": "migrate-recover", "arguments": {"uri": "x"}}"#, #"{"exec-oob": "migrate-recover"}"#, #"{"exec-oob": "query-yank"}"#,
        #"{"exec-oob": "yank", "arguments": {"instances": []}}"#, #"{"exec-oob": "yank"}"#, #"{"exec-oob": "qmp_capabilities"}"#,
        #"{"exec-oob": 1}"#, #"{"exec-oob": "migrate-pause", "execute": "query-name", "id": 1}"#, #"{"exec-oob": "migrate-pause", "x": 1}"#,
        #"{"execute": "query-name", "exec-oob": 1}"#, #"{"execute": 1, "exec-oob": "x"}"#, #"{"execute": "migrate-pause", "id": 3}"#,
      ] {
        for negotiation in Self.negotiations { try await both.compare(Array((negotiation + command).utf8)) }
      }
    }
  }

  @Test("an out-of-band command overtakes one that blocks; in-band ones of other monitors wait") @EventLoopActor
  func overtaking() async throws {
    try await withBoth { both in
      let fifo = both.folder.appending("fifo")
      try #require(await command("mkfifo", [fifo.string]).status == 0)
      let node = #"{"driver": "file", "node-name": "blocked", "filename": "\#(fifo)", "read-only": true}"#
      // What blocks is each one's own.
      let blocking = [
        #"{"execute": "blockdev-add", "id": "in-band", "arguments": \#(node)}"#, #"{"execute": "x-simulator-block", "id": "in-band"}"#,
      ]
      var texts: [String] = []
      for (server, block) in zip(both.servers, blocking) {
        let client = try await server.connect()
        try await client.write(#"{"execute":"qmp_capabilities", "arguments": {"enable": ["oob"]}}"#)
        try await client.write(block + #"{"execute": "query-name", "id": "second"} [] {"exec-oob": "migrate-pause", "id": "out-of-band"}"#)
        try await client.wait(for: #""id": "out-of-band""#)
        if server.simulator == nil {
          let writer = try FileDescriptor.open(fifo, .writeOnly)
          defer { try? writer.close() }
          try await client.wait(for: #""QMP input must be"#)
        } else {
          server.simulator?.unblock()
          try await client.wait(for: #""QMP input must be"#)
        }
        try await client.wait("the line's end") { $0.received.last == UInt8(ascii: "\n") }
        // A block device made of a FIFO is none; that is no matter here.
        texts.append(client.text.replacing(/\{"id": "in-band", "error": .*\}\}/, with: #"{"return": {}, "id": "in-band"}"#))
        client.close()
      }
      #expect(texts[0] == texts[1])
    }
  }

  @Test("monitors, chardevs, objects and descriptors: every mistake, and every success") @EventLoopActor
  func objects() async throws {
    try await withBoth { both in
      for command in ConformanceInputs.objects { try await both.compareReplies(command) }
    }
  }

  @Test("pretty-printed") @EventLoopActor
  func pretty() async throws {
    try await withBoth { both in
      var texts: [String] = []
      for server in both.servers {
        let main = try await server.connect()
        try await main.write(Self.negotiate)
        try await main.write(#"{"execute":"chardev-add","arguments":{"id":"p","backend":\#(server.backend("p"))}}"#)
        try await main.write(
          #"{"execute":"object-add","arguments":{"qom-type":"monitor-qmp","id":"p","chardev":"p","pretty":true},"id":"done"}"#)
        try await main.wait(for: #""id": "done""#)
        let client = try Peer(.connected(to: server.folder.appending("p")))
        try await client.write(#"{"execute":"query-name"}{"execute":"qmp_capabilities"}{"execute":"query-name","id":{"a":[1,{}],"b":[]}}}"#)
        try await client.write(#"{"execute":"query-chardev","arguments":[]}{"execute":"stop"}{"execute":"query-status","id":"the end"}"#)
        try await client.wait(for: #""id": "the end""#)
        try await client.wait("the last line") { $0.text.hasSuffix("}\r\n") }
        texts.append(server.told(client.received))
        for peer in [client, main] { peer.close() }
      }
      #expect(texts[0] == texts[1])
    }
  }

  @Test("descriptors: getfd, add-fd, and monitors that come and go on a socket pair") @EventLoopActor
  func descriptors() async throws {
    try await withBoth { both in
      var texts: [String] = []
      for server in both.servers { texts.append(try await Self.descriptorConversation(server)) }
      #expect(texts[0] == texts[1])
    }
  }

  /// What both clients of a server get to hear.
  @EventLoopActor
  private static func descriptorConversation(_ server: ConformingServer) async throws -> String {
    let main = try await server.connect()
    try await main.write(negotiate)
    let pipe = try pipePair()
    defer { for end in [pipe.reading, pipe.writing] { close(end) } }
    func ask(_ text: String, descriptors: [CInt] = []) async throws {
      let before = main.received.count
      try await main.write(text, descriptors: descriptors)
      try await main.wait("a reply") { $0.received.count > before && $0.received.last == UInt8(ascii: "\n") }
    }
    try await main.wait(for: #"{"return": {}}"#)
    for name in ["p", "1p", "", "p"] {
      try await ask(#"{"execute":"getfd","arguments":{"fdname":"\#(name)"}}"#, descriptors: [pipe.writing])
    }
    let backend = { (name: String) in #"{"type":"socket","data":{"addr":{"type":"fd","data":{"str":"\#(name)"}},"server":false}}"# }
    for _ in 0..<2 { try await ask(#"{"execute":"chardev-add","arguments":{"id":"p","backend":\#(backend("p"))}}"#) }
    try await ask(#"{"execute":"query-name"}"#, descriptors: [pipe.writing])
    // What came with a command that takes none is there for the next.
    try await ask(#"{"execute":"getfd","arguments":{"fdname":"late"}}"#)
    try await ask(#"{"execute":"closefd","arguments":{"fdname":"late"}}"#)
    try await ask(#"{"execute":"getfd","arguments":{"fdname":"two"}}"#, descriptors: [pipe.reading, pipe.writing])
    try await ask(#"{"execute":"getfd","arguments":{"fdname":"three"}}"#)
    for arguments in ["{}", #"{"fdset-id":7,"opaque":"x"}"#, #"{"fdset-id":-1}"#] {
      try await ask(#"{"execute":"add-fd","arguments":\#(arguments)}"#, descriptors: [pipe.writing])
    }
    try await ask(#"{"execute":"query-fdsets"}"#)
    for arguments in [#"{"fdset-id":7}"#, #"{"fdset-id":7}"#, #"{"fdset-id":0,"fd":9999}"#, #"{"fdset-id":0}"#] {
      try await ask(#"{"execute":"remove-fd","arguments":\#(arguments)}"#)
    }
    let (ours, theirs) = try socketPair()
    try await ask(#"{"execute":"getfd","arguments":{"fdname":"s"}}"#, descriptors: [theirs])
    close(theirs)
    try await ask(#"{"execute":"chardev-add","arguments":{"id":"s","backend":\#(backend("s"))}}"#)
    try await ask(#"{"execute":"query-chardev"}"#)
    try await ask(#"{"execute":"object-add","arguments":{"qom-type":"monitor-qmp","id":"s","chardev":"s"}}"#)
    let client = try Peer(OwnedDescriptor(owning: ours))
    try await client.write(
      #"{"execute":"qmp_capabilities"}{"execute":"object-del","arguments":{"id":"s"}}{"execute":"chardev-remove","arguments":{"id":"s"}}"#)
    try await client.write(
      #"{"execute":"object-del","arguments":{"id":"compat_monitor0"},"id":"x"}"#.replacing("compat_monitor0", with: "nope"))
    try await client.wait(for: #""object 'nope' not found"}}"# + "\r\n")
    try await ask(#"{"execute":"object-del","arguments":{"id":"s"}}"#)
    try await ask(#"{"execute":"query-chardev"}"#)
    try await ask(#"{"execute":"chardev-remove","arguments":{"id":"s"}}"#)
    try await client.waitForEnd()
    defer { for peer in [main, client] { peer.close() } }
    return server.told(main.received) + server.told(client.received)
  }

  @Test("quit: who gets what before the end") @EventLoopActor
  func quit() async throws {
    try await withBoth { both in
      var texts: [String] = []
      for server in both.servers {
        let main = try await server.connect()
        try await main.write(Self.negotiate)
        try await main.write(#"{"execute":"chardev-add","arguments":{"id":"q","backend":\#(server.backend("q"))}}"#)
        try await main.write(#"{"execute":"object-add","arguments":{"qom-type":"monitor-qmp","id":"q","chardev":"q"},"id":"done"}"#)
        try await main.wait(for: #""id": "done"}"# + "\r\n")
        let client = try Peer(.connected(to: server.folder.appending("q")))
        try await client.write(Self.negotiate + #"{"execute":"quit","id":1}"#)
        for peer in [client, main] { try await peer.waitForEnd() }
        texts.append(server.told(client.received) + server.told(main.received))
        #expect(!FilePath.exists(server.folder.appending("q")))
      }
      #expect(texts[0] == texts[1])
    }
  }
}
