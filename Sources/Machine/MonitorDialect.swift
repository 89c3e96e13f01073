import QMP
import SystemdEvent
import SystemdJSON

/// How a QEMU spells that monitors are added and removed while it runs.
///
/// Which it is is found out by asking, never by QEMU's version: distributions carry patches.
@EventLoopActor
enum MonitorDialect: Sendable {
  /// A monitor is an object of type `monitor-qmp` (QEMU 11.1).
  case object
  /// There are commands of their own: `monitor-add`, `monitor-remove`, `query-monitors`.
  case command

  /// Asks QEMU, in one write if it has the objects.
  ///
  /// - Returns: the dialect, nil for a QEMU that has neither; and the ids of what there is, for a QEMU that does not remember
  ///   which of its monitors were made while it ran.
  static func ask(_ control: ControlMonitor) async throws(QMPError) -> (dialect: MonitorDialect?, existing: Set<String>) {
    let results = await control.pipeline([
      QMPCommand("qom-list-types", .object(["implements": .string("monitor-qmp")])),
      QMPCommand("qom-list", .object(["path": .string("/objects")])),
    ])
    if try results[0].get().elements?.contains(where: { $0["name"]?.string == "monitor-qmp" }) == true {
      return (.object, Set(try results[1].get().elements?.compactMap { $0["name"]?.string } ?? []))
    }
    let commands = try await control.execute("query-commands").elements ?? []
    return (commands.contains { $0["name"]?.string == "monitor-add" } ? .command : nil, [])
  }

  /// Puts a monitor on a chardev that nothing else uses.
  func add(_ id: String, chardev: String, pretty: Bool) -> QMPCommand {
    var arguments: [(String, JSONVariant)] = [("id", .string(id)), ("chardev", .string(chardev))]
    if pretty { arguments.append(("pretty", .boolean(true))) }
    return switch self {
    case .object: QMPCommand("object-add", .object([("qom-type", .string("monitor-qmp"))] + arguments))
    case .command: QMPCommand("monitor-add", .object(arguments))
    }
  }

  /// Removes a monitor. Its chardev stays, and so does the connection of whoever is at the other end.
  func remove(_ id: String) -> QMPCommand {
    QMPCommand(self == .object ? "object-del" : "monitor-remove", .object(["id": .string(id)]))
  }

  /// Every monitor of this QEMU, in QEMU's order, as far as it tells.
  ///
  /// - Parameter existing: the ids of those that count as from the command line, if QEMU does not say.
  func list(_ control: ControlMonitor, existing: Set<String>) async throws(QMPError) -> [MonitorDescription] {
    switch self {
    case .command:
      try await control.execute("query-monitors").elements?.compactMap(Self.description(ofQuery:)) ?? []
    case .object:
      try await listObjects(control, existing)
    }
  }

  private static func description(ofQuery monitor: JSONVariant) -> MonitorDescription? {
    guard let id = monitor["id"]?.string, let mode = monitor["mode"]?.string else { return nil }
    return MonitorDescription(
      // "control" and "readline" are what the command line calls them.
      id: id, mode: ["control", "qmp"].contains(mode) ? .qmp : .hmp, chardev: monitor["chardev"]?.string,
      isPretty: monitor["pretty"]?.boolean, isDynamic: monitor["dynamic"]?.boolean ?? false)
  }

  private func listObjects(_ control: ControlMonitor, _ existing: Set<String>) async throws(QMPError) -> [MonitorDescription] {
    let objects = try await control.execute("qom-list", .object(["path": .string("/objects")])).elements ?? []
    let monitors: [(id: String, mode: MonitorDescription.Mode)] = objects.compactMap { object in
      guard let id = object["name"]?.string else { return nil }
      switch object["type"]?.string {
      case "child<monitor-qmp>": return (id, .qmp)
      case "child<monitor-hmp>": return (id, .hmp)
      default: return nil
      }
    }
    if monitors.isEmpty { return [] }
    return try await properties(of: monitors.map { "/objects/\($0.id)" }, control).enumerated().compactMap { index, properties in
      // One that went between the two commands.
      guard let properties else { return nil }
      let monitor = monitors[index]
      var description = MonitorDescription(id: monitor.id, mode: monitor.mode, isDynamic: !existing.contains(monitor.id))
      for property in properties {
        switch property["name"]?.string {
        case "chardev": description.chardev = property["value"]?.string
        case "pretty": description.isPretty = property["value"]?.boolean
        default: break
        }
      }
      return description
    }
  }

  /// The properties of each object, in one command; nil for those that are not there any more.
  private func properties(of paths: [String], _ control: ControlMonitor) async throws(QMPError) -> [[JSONVariant]?] {
    func question(_ paths: some Sequence<String>) -> QMPCommand {
      QMPCommand("qom-list-get", .object(["paths": .array(paths.map { .string($0) })]))
    }
    func answer(_ reply: JSONVariant) -> [[JSONVariant]] { (reply.elements ?? []).map { $0["properties"]?.elements ?? [] } }
    do throws(QMPError) {
      let all = question(paths)
      return answer(try await control.execute(all.name, all.arguments))
    } catch {
      // One that has gone fails the command for all, and under a load that adds and removes sessions all the time one often has. So
      // each is asked for by itself, which takes QEMU longer.
      guard case .execute = error else { throw error }
    }
    var found: [[JSONVariant]?] = []
    for reply in await control.pipeline(paths.map { question([$0]) }) {
      switch reply {
      case .success(let reply): found.append(answer(reply).first)
      case .failure(.execute): found.append(nil)
      case .failure(let error): throw error
      }
    }
    return found
  }
}
