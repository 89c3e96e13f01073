import Control
import QAPI
import SystemdEvent
import SystemdJSON

/// What the shells offer for a word that is being typed. Nothing is told of what goes wrong, and other hosts are not asked.
enum Completion {
  /// How long a machine may take to answer: somebody waits with a finger on the key.
  private static let patience = Duration.seconds(2)
  /// The options whose value is a word of its own.
  private static let withValue: Set<String> = ["--timeout", "--depth"]

  /// The machines of this host.
  static func machines() -> [String] { MachineFolders.standard().machines.map(\.name).filter(isPlain) }

  /// The QMP commands and events of the machine that the words name.
  ///
  /// - Parameters:
  ///   - words: the command line.
  ///   - subcommand: what it begins with, behind the program.
  static func commands(_ words: [String], of subcommand: [String]) -> [String] {
    ask(words, of: subcommand) { connection in
      let names = try await connection.schema().names
      return names.commands + names.events
    }
  }

  /// The Varlink methods of the machine that the words name.
  static func methods(_ words: [String], of subcommand: [String]) -> [String] {
    ask(words, of: subcommand) { connection in
      let interfaces = try await connection.call("org.varlink.service.GetInfo")["interfaces"]?.elements?.compactMap(\.string) ?? []
      var methods: [String] = []
      for interface in interfaces {
        let reply = try await connection.call(
          "org.varlink.service.GetInterfaceDescription", .object([("interface", .string(interface))]))
        for line in reply["description"]?.string?.split(separator: "\n") ?? [] where line.hasPrefix("method ") {
          methods.append("\(interface).\(line.dropFirst(7).prefix { $0 != "(" && $0 != " " })")
        }
      }
      return methods
    }
  }

  /// The monitors that can be removed of the machine that the words name.
  static func monitors(_ words: [String], of subcommand: [String]) -> [String] {
    ask(words, of: subcommand) { connection in
      let monitors = try await connection.call("io.qmpvarlink.Monitors.List")["monitors"]?.elements ?? []
      return monitors.filter { $0["dynamic"]?.boolean == true && $0["control"]?.boolean != true }.compactMap { $0["id"]?.string }
    }
  }

  @EventLoopActor private static var answer: [String] = []

  /// Asks the machine, and waits.
  private static func ask(
    _ words: [String], of subcommand: [String], _ question: @escaping @EventLoopActor @Sendable (MachineConnection) async throws -> [String]
  ) -> [String] {
    guard let name = machine(in: words, of: subcommand) else { return [] }
    startTask {
      if let connection = try? await MachineConnection.connect(to: name, within: patience) {
        answer = (try? await question(connection))?.filter(isPlain) ?? []
      }
      EventLoop.shared.exit(0)
    }
    guard (try? EventLoop.shared.run()) == 0 else { return [] }
    return EventLoopActor.assumeIsolated { answer }
  }

  /// The machine's name, behind the subcommand.
  static func machine(in words: [String], of subcommand: [String]) -> String? {
    var rest = words.dropFirst()
    for word in subcommand {
      guard rest.popFirst() == word else { return nil }
    }
    while let word = rest.popFirst() {
      if word == "-H" || word.hasPrefix("--host") { return nil }
      if withValue.contains(word) { _ = rest.popFirst() }
      if !word.hasPrefix("-") { return word.isEmpty ? nil : word }
    }
    return nil
  }

  /// Whether a shell may have it: whoever gives names must not give commands.
  private static func isPlain(_ name: String) -> Bool {
    !name.isEmpty && name.utf8.count <= 256
      && name.utf8.allSatisfy { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0 | 0x20) || "0123456789-_.".utf8.contains($0) }
  }
}
