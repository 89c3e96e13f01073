import Logging
import SystemdEvent
import SystemdJSON
import TestSupport

@testable import Machine
@testable import QMP

/// The far end of a control monitor, that answers as the test says.
@EventLoopActor
final class ScriptedQEMU {
  /// The commands that came, as they came.
  private(set) var commands: [String] = []
  let peer: Peer
  private let answer: (String) -> String?
  private var seen: [() -> Void] = []

  static let done = #"{"return": {}}"#
  static func refusal(_ desc: String) -> String { #"{"error": {"class": "GenericError", "desc": "\#(desc)"}}"# }
  static let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

  /// - Parameter answer: what to answer a command, by its name; nil answers nothing.
  init(_ descriptor: CInt, answer: @escaping (String) -> String?) throws {
    peer = try Peer(OwnedDescriptor(owning: descriptor))
    self.answer = answer
    startTask { [weak self] in await self?.serve() }
  }

  private func serve() async {
    var splitter = MessageSplitter(limit: 1 << 20)
    var consumed = 0
    while (try? await peer.wait("a command") { $0.received.count > consumed || $0.hasEnded }) != nil,
      peer.received.count > consumed
    {
      peer.received[consumed...].withUnsafeBytes { splitter.append($0) }
      consumed = peer.received.count
      while let text = try? splitter.next({ text, _ in String(decoding: text.dropLast(), as: UTF8.self) }) {
        commands.append(text)
        for waiter in seen { waiter() }
        guard let name = (try? JSONVariant(parsing: text))?["execute"]?.string, let reply = answer(name) else { continue }
        try? await peer.write(reply + "\r\n")
      }
    }
  }

  /// Waits until so many commands have come.
  func wait(forCommands count: Int) async throws {
    if commands.count >= count { return }
    let met = Promise<Void>()
    seen.append { [weak self] in if let self, commands.count >= count { met.fulfil() } }
    guard await met.value(within: patience) != nil else { throw NeverCame(description: "\(count) commands, but \(commands)") }
  }
}

/// Monitors of a machine that a test plays.
@EventLoopActor
struct Hotplugging {
  let monitors: Monitors
  let control: ControlMonitor
  let client: QMPClient
  let qemu: ScriptedQEMU

  /// - Parameter answer: what to answer a command, by its name; nil gives success.
  init(answer: @escaping (String) -> String? = { _ in nil }) throws {
    let (ours, theirs) = try socketPair()
    client = try QMPClient(OwnedDescriptor(owning: ours))
    control = ControlMonitor(client, id: nil, responseLimit: patience, logger: ScriptedQEMU.silent)
    monitors = Monitors(control: control, logger: ScriptedQEMU.silent)
    qemu = try ScriptedQEMU(theirs) { name in
      answer(name) ?? (name == "qom-list-types" ? #"{"return": [{"name": "monitor-qmp"}]}"# : ScriptedQEMU.done)
    }
  }

  /// Adds a monitor, and gives its id.
  func add() async -> Result<String, MachineError> {
    do throws(MachineError) { return .success(try await monitors.add().id) } catch { return .failure(error) }
  }
}

extension Result where Failure == MachineError {
  /// The error in words, if it is one.
  var complaint: String? { if case .failure(let error) = self { "\(error)" } else { nil } }
}
