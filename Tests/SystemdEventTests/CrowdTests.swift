import Glibc
import SystemdEvent
import TestSupport
import Testing

@Suite(.onEventLoop, .serialized) struct CrowdTests {
  /// What this process has in memory, in bytes.
  private static func resident() throws -> Int {
    let file = try #require(fopen("/proc/self/statm", "re"))
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 128)
    try #require(fgets(&line, CInt(line.count), file) != nil)
    let fields = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(separator: " ")
    return try #require(Int(fields[1])) * Int(sysconf(CInt(_SC_PAGESIZE)))
  }

  @Test("what many took goes back once they have gone, and not for a few", arguments: [(200, 10, false), (200, 150, true)]) @EventLoopActor
  func goesBack(came: Int, went: Int, isGivenBack: Bool) async throws {
    let crowd = Crowd()
    for _ in 0..<came { crowd.enter() }
    // In small pieces, and one at the end that stays: the allocator gives nothing back of itself then.
    let size = 16 << 20
    let pieces = try (0..<size / 4096).map { _ in try #require(malloc(4000)) }
    for piece in pieces { memset(piece, 1, 4000) }
    let last = malloc(4000)
    let full = try Self.resident()
    for piece in pieces { free(piece) }
    for _ in 0..<went { crowd.leave() }
    try await quiet()
    try await quiet()
    let gone = try full - Self.resident()
    #expect(isGivenBack ? gone > size / 2 : gone < size / 2)
    free(last)
    returnFreeMemory()
  }
}
