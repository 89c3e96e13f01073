import DequeModule
import QEMUJSON

/// Replies that were written down before: one JSON object a line, `#` begins a comment, empty lines count for nothing.
///
/// ```
/// {"execute": "query-block", "return": [], "events": [{"event": "X", "data": {"a": 1}}], "times": 2}
/// {"execute": "query-block", "error": {"class": "GenericError", "desc": "no"}}
/// ```
/// The entries of one command are used in their order, each once or as often as `times` says; the last one for ever, unless it has
/// `times` too. After that the command is what it is without the script. Events come before the reply.
public struct Script: Sendable {
  /// A line that is not as it should be.
  public struct Invalid: Error, Equatable, CustomStringConvertible {
    public let line: Int
    public let reason: String
    public var description: String { "line \(line): \(reason)" }
  }

  struct Event: Sendable {
    let name: String
    let data: QObject?
  }
  struct Reply: Sendable {
    let result: Result<QObject, CommandFailure>
    let events: [Event]
    /// How often it is still to be used; nil for ever.
    var times: Int?
  }

  private var replies: [String: Deque<Reply>] = [:]
  /// The commands that it has replies for, used up or not.
  private(set) var commands: [String] = []

  /// Says nothing.
  public init() {}

  public init(parsing text: String) throws(Invalid) {
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      let content = line.drop(while: \.isWhitespace)
      guard let first = content.first, first != "#" else { continue }
      do throws(Fault) {
        try add(String(content))
      } catch {
        throw Invalid(line: index + 1, reason: error.reason)
      }
    }
    // All but the last of a command are used once, if they do not say how often.
    for command in commands {
      guard let count = replies[command]?.count else { continue }
      for index in 0..<count - 1 where replies[command]?[index].times == nil { replies[command]?[index].times = 1 }
    }
  }

  /// The reply for a command, if there is one left.
  mutating func next(_ command: String) -> Reply? {
    guard let reply = replies[command]?.first else { return nil }
    guard let times = reply.times else { return reply }
    if times > 1 { replies[command]?[0].times = times - 1 } else { replies[command]?.removeFirst() }
    return reply
  }

  private struct Fault: Error {
    let reason: String
  }

  private mutating func add(_ line: String) throws(Fault) {
    let entry: QObject
    do throws(InvalidJSON) { entry = try QObject(parsing: line) } catch { throw Fault(reason: error.description) }
    guard let members = entry.members else { throw Fault(reason: "not a JSON object") }
    let known = ["execute", "return", "error", "events", "times"]
    if let (name, _) = members.ordered.first(where: { !known.contains($0.name) }) {
      throw Fault(reason: "'\(name)' is not one of \(known.joined(separator: ", "))")
    }
    guard let command = members["execute"]?.string else { throw Fault(reason: "'execute' must be a string") }
    guard command != "qmp_capabilities" else { throw Fault(reason: "qmp_capabilities is the simulator's own; use a fault to have it fail") }
    let result = try Self.result(members)
    let events = try Self.events(members["events"])
    var times: Int?
    if let number = members["times"] {
      guard let count = number.integer, (1...1_000_000_000).contains(count) else {
        throw Fault(reason: "'times' must be a whole number from 1")
      }
      times = Int(count)
    }
    if replies[command] == nil { commands.append(command) }
    replies[command, default: []].append(Reply(result: result, events: events, times: times))
  }

  private static func result(_ members: QDict) throws(Fault) -> Result<QObject, CommandFailure> {
    switch (members["return"], members["error"]) {
    case (let value?, nil): return .success(value)
    case (nil, let error?):
      guard let errorClass = error["class"]?.string, let description = error["desc"]?.string else {
        throw Fault(reason: "'error' must have 'class' and 'desc', both strings")
      }
      return .failure(CommandFailure(description, class: errorClass))
    default: throw Fault(reason: "there must be either 'return' or 'error'")
    }
  }

  private static func events(_ list: QObject?) throws(Fault) -> [Event] {
    guard let list else { return [] }
    guard let elements = list.elements else { throw Fault(reason: "'events' must be an array") }
    var events: [Event] = []
    for element in elements {
      guard let name = element["event"]?.string else { throw Fault(reason: "each of 'events' must have 'event', a string") }
      events.append(Event(name: name, data: element["data"]))
    }
    return events
  }
}
