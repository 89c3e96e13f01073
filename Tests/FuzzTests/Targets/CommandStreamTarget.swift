import QEMUJSON

@testable import Relay

/// What the relay makes of a client's commands means to QEMU what the client wrote, complaints and their places included.
///
/// What it means is told by QEMU's parser as the simulator has it, which the relay does not use.
enum CommandStreamTarget {
  /// QEMU's lexer begins anew with it, and the relay holds nothing back from there on.
  private static let resynchronization: UInt8 = 0xFF

  static func run(_ input: [UInt8]) throws {
    let ways = pieces(of: input + [resynchronization])
    let whole = forwarded(ways[0])
    for way in ways.dropFirst() {
      let other = forwarded(way)
      try demand(other == whole, "\(readable(other)) in pieces of \(way.map(\.count)), whole \(readable(whole))")
    }
    let (written, got) = (meaning(of: input + [resynchronization]), meaning(of: whole))
    try demand(written == got, "the client wrote \(written), QEMU got \(got)")
    // White space that is put back: at most what the client had written by then.
    try demand(whole.count <= 2 * input.count + 1, "\(input.count) bytes became \(whole.count - 1)")
  }

  private static func forwarded(_ pieces: [ArraySlice<UInt8>]) -> [UInt8] {
    var stream = CommandStream()
    var output: [UInt8] = []
    for piece in pieces {
      piece.withUnsafeBytes { bytes in
        stream.consume(bytes) { piece in
          switch piece {
          case .command(let bytes), .raw(let bytes): output += bytes
          }
        }
      }
    }
    return output
  }

  private static func meaning(of bytes: [UInt8]) -> [JSONInput.Outcome] {
    var input = JSONInput()
    var outcomes: [JSONInput.Outcome] = []
    for byte in bytes { input.feed(byte, into: &outcomes) }
    return outcomes
  }
}
