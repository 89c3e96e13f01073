import Control
import SystemdEvent
import Terminal

/// A view of machines that fills a terminal, until it is quit.
@EventLoopActor
final class TopScreen {
  private let fleet: WatchedFleet
  private let interval: Duration
  private let rounds: Int
  private let terminal: RawTerminal
  private let looks = Looks(areOn: Style.standard().hasColors)
  private let quit = Promise<Void>()
  private var round = 0
  /// How many lines are above the screen.
  private var offset = 0
  private var timer: EventSource?

  /// Takes the terminal.
  ///
  /// - Parameter rounds: after how many it ends; 0 for never.
  init(_ fleet: WatchedFleet, every interval: Duration, rounds: Int) throws {
    self.fleet = fleet
    self.interval = interval
    self.rounds = rounds
    terminal = try RawTerminal(.screen)
    terminal.onKey = { [weak self] in self?.pressed($0) }
    terminal.onResize = { [weak self] in self?.draw() }
    terminal.onHangUp = { [quit] in quit.fulfil() }
  }

  /// - Returns: the exit status.
  func run() async throws -> CInt {
    defer { terminal.close() }
    draw()
    tick()
    await quit.value
    timer = nil
    return 0
  }

  /// Asks all machines that are not being asked. A slow one keeps nobody waiting: each is shown anew when it answers.
  private func tick() {
    timer = try? EventSource.timer(after: interval) { [weak self] in self?.tick() }
    round += 1
    let isLast = round == rounds
    startTask { [weak self] in
      guard let fleet = self?.fleet else { return }
      await fleet.list()
      self?.draw()
      _ = await concurrently(fleet.machines) { machine in
        await machine.ask()
        self?.draw()
      }
      if isLast { self?.quit.fulfil() }
    }
  }

  private func pressed(_ key: Key) {
    let page = max(1, terminal.size.rows - 2)
    switch key {
    case .text("q"), .control("c"), .control("d"), .escape: return quit.fulfil()
    case .text(" "), .enter: return tick()
    case .control("z"):
      do { try terminal.suspend() } catch { return quit.fulfil() }
    case .up, .text("k"): offset -= 1
    case .down, .text("j"): offset += 1
    case .pageUp: offset -= page
    case .pageDown: offset += page
    case .home: offset = 0
    case .end: offset = .max
    default: return
    }
    draw()
  }

  private func draw() {
    guard quit.result == nil else { return }
    let size = terminal.size
    let lines = TopView(fleet).lines(looks: looks, width: size.columns)
    // The last row is for what one can do here.
    let room = max(0, size.rows - 1)
    offset = min(max(0, offset), max(0, lines.count - room))
    let shown = lines[offset...].prefix(room)
    let hidden = lines.count - shown.count
    let help = "q quits, space asks now" + (hidden > 0 ? ", arrows scroll (\(hidden) more lines)" : "")
    // Each row is cleared just before its text comes, so that nothing flickers.
    let rows = shown + Array(repeating: "", count: room - shown.count)
    let last = looks(help.fitted(to: min(size.columns, help.terminalWidth)), .faint)
    terminal.write("\u{1B}[H" + rows.map { "\u{1B}[K\($0)\r\n" }.joined() + "\u{1B}[J" + last)
  }
}
