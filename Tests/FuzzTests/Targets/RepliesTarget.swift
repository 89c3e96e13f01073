@testable import Relay

/// What looks at a monitor's output finds the same wherever the pieces end, and loses nothing of it.
enum RepliesTarget {
  static func run(_ input: [UInt8]) throws {
    let ways = pieces(of: input)
    let scans = ways.map(scan)
    try demand(scans.allSatisfy { $0 == scans[0] }, "replies counted: \(scans)")
    let splits = ways.map(split)
    try demand(splits.allSatisfy { $0 == splits[0] }, "\(splits)")
    let skipped = ways.map { skip(2, $0) }
    try demand(skipped.allSatisfy { $0 == skipped[0] }, "\(skipped)")
    let refused = ways.map(refuse)
    try demand(refused.allSatisfy { $0 == refused[0] }, "\(refused)")
    let drained = ways.map(drain)
    try demand(drained.allSatisfy { $0 == drained[0] }, "\(drained)")
    // With nothing to look for, everything passes.
    try demand(skip(0, ways[0]).elementsEqual(input.prefix(skip(0, ways[0]).count)), "an event was dropped that nobody asked for")
  }

  private struct Scan: Equatable {
    var count = 0
    var isNegotiated = false
    var isMidMessage = false
  }

  private static func scan(_ pieces: [ArraySlice<UInt8>]) -> Scan {
    var scanner = ReplyScanner()
    let count = pieces.reduce(0) { count, piece in count + piece.withUnsafeBytes { scanner.count(in: $0) } }
    return Scan(count: count, isNegotiated: scanner.isNegotiated, isMidMessage: scanner.isMidMessage)
  }

  private struct Split: Equatable {
    var events: [[UInt8]] = []
    /// All of it, in order.
    var all: [UInt8] = []
    var otherLines = 0
  }

  private static func split(_ pieces: [ArraySlice<UInt8>]) -> Split {
    var splitter = EventSplitter()
    var result = Split()
    for piece in pieces {
      piece.withUnsafeBytes { bytes in
        splitter.consume(bytes) { piece in
          switch piece {
          case .event(let line):
            result.events.append(line)
            result.all += line
          case .other(let bytes): result.all += bytes
          }
        }
      }
    }
    result.otherLines = splitter.otherLines
    return result
  }

  private static func skip(_ count: Int, _ pieces: [ArraySlice<UInt8>]) -> [UInt8] {
    var skipper = EventSkipper(count)
    return pieces.flatMap { piece in piece.withUnsafeBytes { skipper.filter($0) } }
  }

  private static func refuse(_ pieces: [ArraySlice<UInt8>]) -> [UInt8] {
    var filter = RefusalFilter(nonce: "n")
    // Seeds have the ids that these get.
    _ = filter.placeholder(for: Array("[refused]".utf8))
    _ = filter.placeholder(for: Array("[refused too]".utf8))
    return pieces.flatMap { piece in piece.withUnsafeBytes { filter.filter($0) } }
  }

  private struct Drain: Equatable {
    var output: [UInt8] = []
    var rest: [UInt8] = []
    var isDone = false
  }

  private static func drain(_ pieces: [ArraySlice<UInt8>]) -> Drain {
    var filter = DrainFilter(nonce: "n", after: ReplyScanner())
    var result = Drain()
    for piece in pieces {
      if filter.isDone {
        result.rest += piece
        continue
      }
      result.output += piece.withUnsafeBytes { filter.filter($0) }
      if filter.isDone { result.rest = filter.rest }
    }
    result.isDone = filter.isDone
    return result
  }
}
