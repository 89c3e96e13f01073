import Foundation
import SystemdEvent
import TestSupport
import Testing

/// What `make fuzz` does for long, for a moment: all that is kept, and some more by chance.
@Suite("what is fuzzed holds for what is kept", .onEventLoop, .serialized) struct CorpusTests {
  private static let names = [
    "command-stream", "replies", "relay", "sharing", "fence", "qemu-json", "json-bridge", "qmp-client", "schema-text", "schema", "policy",
    "options", "firmware", "varlink-methods",
  ]

  @Test("every target has a corpus, and every corpus a target") @EventLoopActor
  func complete() throws {
    #expect(FuzzTarget.all.map(\.name) == Self.names)
    let folders = try FileManager.default.contentsOfDirectory(atPath: Self.corpus.path)
    #expect(folders.sorted() == Self.names.sorted())
  }

  @Test("inputs that are kept", arguments: names) @EventLoopActor
  func kept(name: String) async throws {
    let target = try #require(FuzzTarget.all.first { $0.name == name })
    let inputs = try Self.inputs(of: name)
    #expect(!inputs.isEmpty)
    for (file, bytes) in inputs {
      do { try await target.run(bytes) } catch { Issue.record("\(file): \(error)") }
    }
  }

  @Test("a few changes to them", arguments: names) @EventLoopActor
  func changed(name: String) async throws {
    let target = try #require(FuzzTarget.all.first { $0.name == name })
    let inputs = try Self.inputs(of: name).map(\.bytes).filter { $0.count < 4096 }
    var random = SplitMix(seed: 1)
    for _ in 0..<100 {
      let bytes = Self.mutated(inputs.pick(&random), &random)
      do { try await target.run(bytes) } catch { Issue.record("\(bytes): \(error)") }
    }
  }

  private static let corpus = Bundle.module.bundleURL.appending(path: "Corpus")

  private static func inputs(of name: String) throws -> [(file: String, bytes: [UInt8])] {
    try FileManager.default.contentsOfDirectory(at: corpus.appending(path: name), includingPropertiesForKeys: nil)
      .sorted { $0.path < $1.path }.map { ($0.lastPathComponent, Array(try Data(contentsOf: $0))) }
  }

  private static func mutated(_ input: [UInt8], _ random: inout SplitMix) -> [UInt8] {
    var bytes = input
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      let place = Int.random(in: 0...bytes.count, using: &random)
      switch Int.random(in: 0..<3, using: &random) {
      case 0: bytes.insert(UInt8.random(in: 0...255, using: &random), at: place)
      case 1: if place < bytes.count { bytes.remove(at: place) }
      default: if place < bytes.count { bytes[place] = UInt8.random(in: 0...255, using: &random) }
      }
    }
    return bytes
  }
}
