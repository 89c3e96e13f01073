import Glibc
public import SystemdEvent
public import SystemdJSON

/// An event of a machine, as a line for a person.
@EventLoopActor
public enum EventLine {
  /// How much is shown of an event's data, in characters.
  private static let longestValue = 400

  /// The line, with its end.
  ///
  /// - Parameters:
  ///   - message: a message of `SubscribeEvents`.
  ///   - label: whose event it is, where there are several machines.
  public static func text(of message: JSONVariant, label: String?, _ style: Style) -> String {
    let event = message["event"]?.string ?? "?"
    let seconds = message["timestamp"]?["seconds"]?.integer.flatMap(UInt64.init(exactly:))
    let microseconds = message["timestamp"]?["microseconds"]?.integer.flatMap(UInt64.init(exactly:)) ?? 0
    // What QEMU did not send has no time; it is new all the same.
    let time = seconds.flatMap { $0 < 1 << 40 ? WallTime(microseconds: $0 * 1_000_000 + microseconds % 1_000_000) : nil } ?? .now
    var words = [style(time.timeOfDay, .faint)]
    if let label { words.append(style(label)) }
    words.append(style(event, emphasis(of: event)))
    for (name, value) in message["data"]?.members ?? [] { words.append(style("\(name)=\(Self.text(of: value))")) }
    return words.joined(separator: " ") + "\n"
  }

  /// A value as it is written behind `name=`: JSON, but for strings that read as well without quotes.
  private static func text(of value: JSONVariant) -> String {
    if let string = value.string, !string.isEmpty, string.count <= longestValue,
      string.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") })
    {
      return string
    }
    let text = value.text
    return text.count <= longestValue ? text : text.prefix(longestValue) + "…"
  }

  private static func emphasis(of event: String) -> Emphasis {
    switch event {
    case "READY": .faint
    case "OVERFLOW", "GUEST_PANICKED", "BLOCK_IO_ERROR", "SHUTDOWN": .bad
    case "RESUME": .good
    default: .doubtful
    }
  }
}
