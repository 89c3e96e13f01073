import QEMUJSON

/// What becomes of QEMU's reply on its way from a shared monitor to the client.
enum SharedReply {
  /// It is the client's as it is.
  case verbatim
  /// The command was sent without its name, because of this; QEMU's answer that there is no such command becomes that.
  case refused(errorClass: String, desc: String)
  /// The client negotiates, and QEMU, which has negotiated with us long ago, answers that it ignores the command.
  ///
  /// - Parameter asksForOutOfBand: it asks for the capability `oob`, which it cannot have.
  case negotiation(asksForOutOfBand: Bool)

  /// QEMU's own refusals, as both QEMU 7.2 and 11.1 spell them.
  static let notNegotiated = SharedReply.refused(
    errorClass: "CommandNotFound", desc: "Expecting capabilities negotiation with 'qmp_capabilities'")
  static let noDescriptor = SharedReply.refused(errorClass: "GenericError", desc: "No file descriptor supplied via SCM_RIGHTS")

  private static let noSuchCommand = error("CommandNotFound", "The command  has not been found")
  private static let negotiatedAlready = error("CommandNotFound", "Capabilities negotiation is already complete, command ignored")

  /// What the client gets, without a line end, and whether its negotiation has succeeded.
  func delivered(of reply: [UInt8]) -> (text: [UInt8], negotiates: Bool) {
    switch self {
    case .verbatim: return (reply, false)
    case .refused(let errorClass, let desc):
      return (Self.replacing(Self.noSuchCommand, in: reply, with: Self.error(errorClass, desc)) ?? reply, false)
    case .negotiation(asksForOutOfBand: true):
      let refusal = Self.error("GenericError", "Capability oob not available")
      return (Self.replacing(Self.negotiatedAlready, in: reply, with: refusal) ?? reply, false)
    case .negotiation:
      guard let agreed = Self.replacing(Self.negotiatedAlready, in: reply, with: Array(#""return": {}"#.utf8)) else {
        return (reply, false)
      }
      return (Self.idLast(agreed), true)
    }
  }

  /// An error reply without an id, without a line end.
  static func complaint(_ desc: String) -> [UInt8] { Array("{".utf8) + error("GenericError", desc) + Array("}".utf8) }

  private static func error(_ errorClass: String, _ desc: String) -> [UInt8] {
    Array(#""error": {"class": "\#(errorClass)", "desc": \#(QObject.string(desc).text)}"#.utf8)
  }

  /// The reply with another end, if it ends with `old`. What stands before is its id, which may be anything, also the same again.
  private static func replacing(_ old: [UInt8], in reply: [UInt8], with new: [UInt8]) -> [UInt8]? {
    let end = old + "}".utf8
    guard reply.suffix(end.count) == end[...] else { return nil }
    return Array(reply.dropLast(end.count)) + new + "}".utf8
  }

  /// QEMU writes an id before "error" and behind "return".
  private static func idLast(_ reply: [UInt8]) -> [UInt8] {
    let end = Array(#", "return": {}}"#.utf8)
    guard reply.starts(with: #"{"id": "#.utf8), reply.suffix(end.count) == end[...] else { return reply }
    return Array(#"{"return": {}, "#.utf8) + reply.dropFirst().dropLast(end.count) + Array("}".utf8)
  }
}

/// The greeting for the clients of a shared monitor: QEMU's own, without the capability `oob`. Commands of one client that overtake
/// those of the others would answer in an order that nobody knows.
func sharedGreeting(_ greeting: [UInt8]) -> [UInt8] {
  let text = String(decoding: greeting, as: UTF8.self)
  let capabilities = /"capabilities": (\[.*?\])/
  guard let match = text.matches(of: capabilities).last, let list = try? QObject(parsing: String(match.output.1)).elements else {
    return greeting
  }
  let (start, end) = (match.output.1.startIndex, match.output.1.endIndex)
  return Array((text[..<start] + QObject.array(list.filter { $0 != "oob" }).text + text[end...]).utf8)
}
