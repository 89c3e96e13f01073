import Control
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@Suite(.onEventLoop) struct EventLineTests {
  @Test(
    "an event's data stands behind its name",
    arguments: [
      (#"{"event":"STOP","timestamp":{"seconds":0,"microseconds":5000}}"#, " STOP\n"),
      (#"{"event":"RESET","data":{"guest":false,"reason":"host-qmp-system-reset"}}"#, " RESET guest=false reason=host-qmp-system-reset\n"),
      (
        #"{"event":"X","data":{"a":"two words","b":"","c":[1,{"d":null}],"e":"\"q\""}}"#,
        #" X a="two words" b="" c=[1,{"d":null}] e="\"q\"""# + "\n"
      ),
      (#"{"event":"\u001b[2J","data":{"\u0007":"\n"}}"#, " \\u001b[2J \\u0007=\"\\n\"\n"),
      (#"{"data":7}"#, " ?\n"),
    ]) @EventLoopActor
  func lines(message: String, expected: String) throws {
    let line = EventLine.text(of: try JSONVariant(parsing: message), label: nil, Style(hasColors: false))
    #expect(line.dropFirst("00:00:00.000".count) == expected)
    #expect(EventLine.text(of: try JSONVariant(parsing: message), label: "h:m\u{1B}", Style(hasColors: false)).contains(" h:m\\u001b "))
  }

  @Test("its time is the one that QEMU tells") @EventLoopActor
  func time() throws {
    let message = try JSONVariant(parsing: #"{"event":"STOP","timestamp":{"seconds":1700000000,"microseconds":123456}}"#)
    let line = EventLine.text(of: message, label: nil, Style(hasColors: false))
    #expect(line.hasPrefix(WallTime(microseconds: 1_700_000_000_123_456).timeOfDay) && line.contains(":20.123 STOP"))
  }

  @Test("many things are done at once, in order, and no more than may be", arguments: [1, 3, 100]) @EventLoopActor
  func concurrency(limit: Int) async {
    var running = 0
    var most = 0
    let results = await concurrently(Array(0..<20), atMost: limit) { number in
      running += 1
      most = max(most, running)
      await Task.yield()
      running -= 1
      return number
    }
    #expect(results == Array(0..<20) && most <= limit && (limit == 1 || most > 1))
  }
}
