import Control
import Glibc
import QAPI
import QMP
import SystemPackage
import SystemdEvent
import SystemdJSON
import Terminal

/// A session that a person types commands for.
@EventLoopActor
final class QMPShell {
  private let session: QMPSession
  private let isHMP: Bool
  private let reader: LineReader
  private let looks: Looks
  private let json: PrettyJSON
  /// Nil if the history is not kept.
  private var historyFile = HistoryFile(of: "qmpctl")
  /// What can be completed; nil for the human monitor.
  private let schema: Schema?
  private let hmp: HMPCommands
  /// The last command that was answered.
  private var lastCommand = ""
  /// A command whose reply nobody waits for any more.
  private var abandoned: String?

  private static let help = """
    COMMAND [KEY=VALUE...]   executes a command; a.b=1 is a member of a member, l.0=1 an element of a list
    COMMAND {JSON}           the same with all arguments as JSON
    {"execute": ...}         the same as one JSON object
    help COMMAND [KEY=VALUE...]  describes a command, and what it takes with these arguments
    exit                     ends the session, as Ctrl-D does
    Tab completes, and lists what there is when pressed twice; Ctrl-R searches; Ctrl-C drops the line.
    """

  /// Negotiates, asks for what can be completed, and takes the terminal then: until then Ctrl-C does what it always does.
  ///
  /// - Throws: ``ControlError``.
  static func start(on session: QMPSession, isHMP: Bool) async throws -> QMPShell {
    var early: [QMPEvent] = []
    session.onEvent = { if early.count < mostEarlyEvents { early.append($0) } }
    let version = try await session.negotiate()
    let schema = isHMP ? nil : try await session.schema()
    let shell = try QMPShell(session, schema: schema, isHMP ? try await HMPCommands(of: session) : HMPCommands())
    shell.reader.show("Connected to QEMU \(version.escapedForTerminal). Tab completes, \(isHMP ? "" : "'help' helps, ")Ctrl-D ends.")
    for event in early { shell.show(event) }
    return shell
  }

  /// How many events are kept that come before there is a terminal to show them on.
  private static let mostEarlyEvents = 64

  private init(_ session: QMPSession, schema: Schema?, _ hmp: HMPCommands) throws {
    self.session = session
    self.schema = schema
    self.hmp = hmp
    isHMP = schema == nil
    looks = Looks(areOn: Style.standard().hasColors)
    json = PrettyJSON(looks: looks)
    let history = (try? historyFile?.read()) ?? []
    let name = session.name.escapedForTerminal(atMost: 40)
    reader = LineReader(try RawTerminal(.lines), prompt: "\(name)\(schema == nil ? " (hmp)" : "")> ", history: History(history))
    let looks = self.looks
    reader.promptStyle = { looks($0, .bold) }
    reader.completing = { [weak self] in self?.completion(of: $0) ?? .none }
    session.onEvent = { [weak self] event in self?.show(event) }
    session.ended.whenFulfilled { [weak self] _ in self?.reader.close() }
  }

  /// Executes what is typed, until there is no more.
  ///
  /// - Returns: the exit status.
  /// - Throws: ``ControlError`` if the session ends by itself, but for a `quit` that was asked for.
  func run() async throws -> CInt {
    defer { reader.close() }
    while true {
      switch await reader.read() {
      case .line(let line): if try await !execute(line.trimmed, keeps: !line.hasPrefix(" ")) { return 0 }
      case .interrupted: break
      case .ended: return 0
      case .closed:
        let error = session.failure(session.ended.result ?? .disconnected)
        guard lastCommand == "quit" else { throw error }
        complain(error)
        return 0
      }
    }
  }

  // MARK: commands

  /// - Returns: whether there is to be another.
  private func execute(_ line: String, keeps: Bool) async throws -> Bool {
    guard !line.isEmpty else { return true }
    if keeps { remember(line) }
    let request: QMPRequest
    do {
      if isHMP {
        request = .hmp(line)
      } else {
        let typed = try TypedLine(line)
        if line == "exit" { return false }
        if let help = try help(typed) {
          reader.show(help)
          return true
        }
        request = try await QMPRequest(typed) { [session] in try await session.schema() }
      }
    } catch let error where error is ArgumentError || error is InvalidCommand {
      reader.show(looks("\(error)".escapedForTerminal, .red))
      return true
    }
    if let abandoned {
      reader.show("\(abandoned) has not been answered yet, and QEMU answers in order.".escapedForTerminal)
    }
    try await show(request)
    return true
  }

  /// What to say to a line that asks for help; nil for others.
  private func help(_ line: TypedLine) throws(ArgumentError) -> String? {
    guard let first = line.words.first, first.value == "help", first.form == .plain, first.key == nil, let schema else { return nil }
    guard line.words.count > 1 else { return Self.help }
    return try schema.description(of: line.words[1].value, with: line.words.dropFirst(2)).split(separator: "\n").map {
      String($0).escapedForTerminal
    }.joined(separator: "\n")
  }

  /// Executes a command and shows its reply; also when Ctrl-C was pressed, but then nobody waits for it.
  private func show(_ request: QMPRequest) async throws {
    let done = Promise<Result<Bool, ControlError>>()
    reader.onInterrupt = { done.fulfil(.success(false)) }
    defer { reader.onInterrupt = nil }
    startTask { [self] in
      do throws(ControlError) {
        let reply = try await session.send(request)
        if abandoned == request.name { abandoned = nil }
        lastCommand = request.name
        if done.result != nil { reader.show("\(request.name.escapedForTerminal):") }
        show(reply)
        done.fulfil(.success(true))
      } catch {
        done.fulfil(.failure(error))
      }
    }
    guard try await !done.value.get() else { return }
    abandoned = request.name
    reader.show("^C\n\(request.name.escapedForTerminal) is still under way; its reply is shown when it comes.")
  }

  private func show(_ reply: QMPSession.Reply) {
    switch reply.result {
    case .failure(let refusal):
      reader.show("\(looks(refusal.errorClass.escapedForTerminal, .red)): \(refusal.desc.escapedForTerminal)")
    case .success(let value):
      guard isHMP, let output = value.string else { return reader.show(json.text(value)) }
      if !output.isEmpty { reader.show(HMPText.forTerminal(output)) }
    }
  }

  private func show(_ event: QMPEvent) {
    let seconds = event.timestamp?["seconds"]?.integer.flatMap(UInt64.init(exactly:)) ?? 0
    let microseconds = event.timestamp?["microseconds"]?.integer.flatMap(UInt64.init(exactly:)) ?? 0
    let time = WallTime(microseconds: min(seconds, 1 << 40) * 1_000_000 + microseconds % 1_000_000).timeOfDay
    let data = event.data.map { " " + json.line($0) } ?? ""
    reader.show("\(looks(time, .faint)) \(looks(event.name.escapedForTerminal, .yellow))\(data)")
  }

  private func remember(_ line: String) {
    // Not what is a secret.
    guard !line.contains("password"), !line.contains("secret") else { return }
    do {
      try historyFile?.append(line)
    } catch {
      // Told once.
      historyFile = nil
      reader.show("The history is not kept: \(error)".escapedForTerminal)
    }
  }

  // MARK: completion

  private func completion(of line: String) -> LineCompletion {
    guard let schema else { return hmp.completion(of: line) }
    // What is described is a command too.
    let described = line.hasPrefix("help ") ? String(line.dropFirst("help ".count)) : line
    let suggestions = schema.suggestions(for: described)
    var candidates = suggestions.candidates.map { LineCompletion.Candidate($0.text, suffix: $0.suffix) }
    if !line.contains(where: \.isWhitespace) { candidates += [.init("help"), .init("exit")] }
    return LineCompletion(of: suggestions.typed, among: candidates)
  }
}
