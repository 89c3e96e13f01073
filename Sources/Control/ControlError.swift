public import SystemdEvent
import SystemdJSON
import Terminal
public import Varlink

/// Why something could not be done, in words for a person at a terminal. They are harmless to that, whoever they come from.
public struct ControlError: Error, Sendable, CustomStringConvertible {
  /// What kind of failure it is; its number is a program's exit status for it.
  public enum Kind: CInt, Sendable {
    /// The machine was asked, and refused or failed.
    case failed = 1
    /// There is no such machine or host, or no connection to be had, or none any more.
    case unreachable = 69
  }

  public let kind: Kind
  /// What happened, on one line.
  public let message: String
  /// What to do about it, on one line.
  public let hint: String?

  /// - Parameters:
  ///   - message: made harmless to a terminal here.
  ///   - hint: likewise.
  public init(_ kind: Kind, _ message: String, hint: String? = nil) {
    self.kind = kind
    self.message = message.escapedForTerminal
    self.hint = hint?.escapedForTerminal
  }

  public var description: String { hint.map { "\(message)\n\($0)" } ?? message }
}

extension ControlError {
  /// What became of a call to a machine.
  ///
  /// - Parameters:
  ///   - machine: what the user calls the machine.
  ///   - limit: how long an answer was waited for.
  @EventLoopActor
  public init(_ error: VarlinkClientError, machine: String, limit: Duration) {
    switch error {
    case .connect(let error): self.init(.unreachable, "cannot connect to machine '\(machine)': \(error.errno)")
    case .refused(let error): self.init(refusal: error)
    case .disconnected: self.init(.unreachable, "machine '\(machine)' hung up")
    case .timedOut:
      self.init(
        .unreachable, "machine '\(machine)' did not answer within \(limit.inWords)",
        hint: "Its daemon hangs, or is very busy; --timeout=SECONDS waits longer.")
    case .closed: self.init(.failed, "given up")
    }
  }

  /// An error reply.
  @EventLoopActor
  private init(refusal error: VarlinkError) {
    let parameters = error.parameters
    // QEMU's words, or the daemon's, say it best.
    if let words = parameters?["desc"]?.string ?? parameters?["reason"]?.string {
      self.init(.failed, words)
    } else if error.name == "org.varlink.service.MethodNotFound" || error.name == "org.varlink.service.InterfaceNotFound" {
      let missing = parameters?["method"]?.string ?? parameters?["interface"]?.string ?? "what was asked for"
      self.init(.failed, "the machine's service does not have \(missing)", hint: "It may be another version, or have started only now.")
    } else {
      let name = error.name.split(separator: ".").last.map(String.init) ?? error.name
      let details = parameters?.members?.map { $0.value.string ?? "\($0.name)=\($0.value)" }.joined(separator: ", ")
      self.init(.failed, [Self.words(of: name), details].compactMap { $0 }.joined(separator: ": "), hint: Self.hint(for: error.name))
    }
  }

  /// What to do about errors of which that can be said.
  private static func hint(for name: String) -> String? {
    switch name {
    case "io.systemd.InteractiveAuthenticationRequired":
      "Polkit asks for a password only at a terminal or a desktop, and not for each method; see POLKIT in qmp-varlinkd(8)."
    case "io.systemd.QemuMachineInstance.TooManySessions": "'qmpctl sessions' shows whose they are."
    case "io.qmpvarlink.Monitors.NoSuchMonitor": "'qmpctl monitors' lists those that there are."
    case "io.qmpvarlink.Monitors.NotDynamic": "Only monitors that were made while the machine ran can be removed."
    case "io.systemd.MachineInstance.BadConfig": "'qmpctl storage add --help' lists those that there are."
    default: nil
    }
  }

  /// `NoSuchStorage` as `no such storage`.
  static func words(of name: String) -> String {
    var words = ""
    var wasLower = false
    for character in name {
      if character.isUppercase, wasLower { words.append(" ") }
      wasLower = character.isLowercase
      words.append(contentsOf: wasLower ? String(character) : character.lowercased())
    }
    return words
  }
}
