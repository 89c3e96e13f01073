/// Keeps the next few events of a monitor from a client that has had them from elsewhere, and lets all else pass.
struct EventSkipper {
  private var splitter = EventSplitter()
  private var left: Int

  init(_ count: Int) { left = count }

  /// There is nothing left to skip, and nothing is held back.
  var isDone: Bool { left == 0 && !splitter.isMidLine }

  /// Takes in what the monitor sent, and gives back what the client is to get.
  mutating func filter(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
    var output: [UInt8] = []
    var left = left
    splitter.consume(bytes) { piece in
      switch piece {
      case .event(let line): if left > 0 { left -= 1 } else { output += line }
      case .other(let bytes): output += bytes
      }
    }
    self.left = left
    return output
  }
}
