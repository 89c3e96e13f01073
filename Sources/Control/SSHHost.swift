import SystemPackage
import SystemdEvent
import SystemdJSON

/// Another host, reached by `ssh` as varlinkctl reaches it: `$SYSTEMD_SSH` names the program.
public struct SSHHost: Sendable, Equatable {
  /// `HOST`, `USER@HOST`, or what else `ssh` takes.
  public let name: String

  /// The longest name; those of the DNS have 253.
  private static let longestName = 512

  /// - Returns: nil for what would be an option of `ssh`, or is no name at all.
  public init?(_ name: String) {
    guard !name.isEmpty, !name.hasPrefix("-"), name.utf8.count <= Self.longestName, name.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F })
    else { return nil }
    self.name = name
  }

  static var program: String { ProcessEnvironment.value(of: "SYSTEMD_SSH") ?? "ssh" }

  /// The arguments that have `ssh` run `qmpctl` there, for its output alone.
  func arguments(for words: [String]) -> [String] {
    // What ssh(1) gives the other side's shell is one text.
    ["-e", "none", "-T", name, (["qmpctl"] + words).map(Self.quoted).joined(separator: " ")]
  }

  /// The option that has `qmpctl` there give up on a machine before this side gives up on the host: the way there takes time too.
  static func timeout(within limit: Duration) -> String { "--timeout=\(max(1, limit.components.seconds * 3 / 4))" }

  /// A word that a shell takes as it is.
  static func quoted(_ word: String) -> String {
    let isPlain =
      !word.isEmpty
      && word.utf8.allSatisfy { byte in
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) || "0123456789-_./=:@,+".utf8.contains(byte)
      }
    return isPlain ? word : "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: #"'\''"#) + "'"
  }

  /// The machines that this host has, from `qmpctl list` there.
  ///
  /// - Parameters:
  ///   - words: arguments for that.
  ///   - limit: how long it may take.
  /// - Throws: ``ControlError``.
  @EventLoopActor
  func list(_ words: [String], within limit: Duration) async throws(ControlError) -> [JSONVariant] {
    let output = try await RemoteCommand.output(of: ["list", "--json"] + words, on: self, within: limit)
    guard let list = try? JSONVariant(parsing: output).elements, list.allSatisfy(\.isObject) else {
      throw ControlError(.unreachable, "qmpctl at \(name) answers what is no list of machines", hint: "It may be another version.")
    }
    return list
  }

  /// The machines that this host has, without asking them.
  ///
  /// - Throws: ``ControlError``.
  @EventLoopActor
  func machines(within limit: Duration) async throws(ControlError) -> [MachineAddress] {
    try await list(["--no-status"], within: limit).compactMap { address(from: $0) }
  }

  /// The machine of that name there, or at that path.
  ///
  /// - Throws: ``ControlError`` that tells which machines there are.
  @EventLoopActor
  func machine(_ machine: String, within limit: Duration) async throws(ControlError) -> MachineAddress {
    try self.machine(machine, among: machine.hasPrefix("/") ? [] : await machines(within: limit))
  }

  /// The machine of that name among those that there are, or the one at that path.
  func machine(_ machine: String, among found: [MachineAddress]) throws(ControlError) -> MachineAddress {
    if machine.hasPrefix("/") { return MachineAddress(name: machine, socket: FilePath(machine), host: self) }
    if let address = found.first(where: { $0.name == machine }) { return address }
    throw ControlError(.unreachable, "there is no machine '\(machine)' at \(name)", hint: MachineFolders.hint(found.map(\.name)))
  }

  /// An entry of its list; nil if it is none.
  @EventLoopActor
  func address(from entry: JSONVariant) -> MachineAddress? {
    guard let name = entry["name"]?.string, let socket = entry["socket"]?.string, socket.hasPrefix("/") else { return nil }
    let process = entry["pid"]?.integer.flatMap(Int32.init(exactly:)).map { id in
      ServingProcess(id: id, since: entry["sinceUSec"]?.integer.flatMap(UInt64.init(exactly:)).map(WallTime.init(microseconds:)))
    }
    return MachineAddress(name: name, socket: FilePath(socket), host: self, process: process)
  }
}
