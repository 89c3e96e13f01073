import Glibc

/// How many characters a terminal shows.
public struct TerminalSize: Equatable, Sendable {
  public let columns: Int
  public let rows: Int

  /// At least one of each.
  public init(columns: Int, rows: Int) {
    self.columns = max(1, columns)
    self.rows = max(1, rows)
  }

  /// That of the terminal that a descriptor is; 80 by 24 if it does not tell.
  public init(of descriptor: CInt) {
    var size = winsize()
    let isKnown = ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 && size.ws_row > 0
    self.init(columns: isKnown ? Int(size.ws_col) : 80, rows: isKnown ? Int(size.ws_row) : 24)
  }
}
