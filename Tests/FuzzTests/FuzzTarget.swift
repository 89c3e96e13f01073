import SystemdEvent

/// Something that takes bytes from others, and what must hold of it whatever the bytes are.
///
/// `make fuzz` has libFuzzer look for bytes with which it does not; the tests run what is in `Corpus/` under the target's name: seeds, and
/// whatever was found once.
@EventLoopActor
struct FuzzTarget {
  let name: String
  /// - Throws: ``Violation``, or what else should not have happened.
  let run: @EventLoopActor ([UInt8]) async throws -> Void

  static let all = [
    FuzzTarget(name: "command-stream") { try CommandStreamTarget.run($0) },
    FuzzTarget(name: "replies") { try RepliesTarget.run($0) },
    FuzzTarget(name: "relay") { try await RelayTarget.run($0) },
    FuzzTarget(name: "sharing") { try SharingTarget.run($0) },
    FuzzTarget(name: "fence") { try FenceTarget.run($0) },
    FuzzTarget(name: "qemu-json") { try QEMUJSONTarget.run($0) },
    FuzzTarget(name: "json-bridge") { try JSONBridgeTarget.run($0) },
    FuzzTarget(name: "qmp-client") { try await QMPClientTarget.run($0) },
    FuzzTarget(name: "schema-text") { try SchemaTarget.runText($0) },
    FuzzTarget(name: "schema") { try SchemaTarget.run($0) },
    FuzzTarget(name: "policy") { try PolicyTarget.run($0) },
    FuzzTarget(name: "options") { try OptionsTarget.run($0) },
    FuzzTarget(name: "firmware") { try FirmwareTarget.run($0) },
    FuzzTarget(name: "varlink-methods") { try await VarlinkMethodsTarget.run($0) },
  ]
}

/// What must hold does not.
struct Violation: Error, CustomStringConvertible {
  let description: String
}

/// - Throws: ``Violation`` unless `holds`.
func demand(_ holds: Bool, _ what: @autoclosure () -> String) throws(Violation) {
  if !holds { throw Violation(description: what()) }
}

/// Takes an input apart that says what to do.
struct ByteReader {
  private(set) var rest: ArraySlice<UInt8>

  init(_ bytes: [UInt8]) { rest = bytes[...] }

  var isAtEnd: Bool { rest.isEmpty }

  /// The next byte; 0 at the end.
  mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }

  /// A number below `count`.
  mutating func number(below count: Int) -> Int { count > 0 ? Int(byte()) % count : 0 }

  /// The next bytes, as many as the next byte says.
  mutating func bytes() -> [UInt8] {
    let count = Int(byte())
    defer { rest = rest.dropFirst(count) }
    return Array(rest.prefix(count))
  }
}

/// The ways to cut an input that nothing may depend on: whole, byte by byte, and at random, but always at the same places.
func pieces(of bytes: [UInt8]) -> [[ArraySlice<UInt8>]] {
  var random: UInt64 = bytes.reduce(1) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  var odd: [ArraySlice<UInt8>] = []
  var rest = bytes[...]
  while !rest.isEmpty {
    random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    let count = 1 + Int(random >> 33) % (random >> 62 == 0 ? 64 : 7)
    odd.append(rest.prefix(count))
    rest = rest.dropFirst(count)
  }
  return [[bytes[...]], bytes.indices.map { bytes[$0...$0] }, odd]
}

/// Bytes in a message for people.
func readable(_ bytes: some Sequence<UInt8>) -> String { String(decoding: Array(bytes), as: UTF8.self).debugDescription }
