import OrderedCollections
import QEMUJSON
import SystemdEvent

extension Command {
  /// The commands that look at the tree of objects.
  static let qom: [Command] = [
    Command("qom-list", [Parameter("path", .string)], returns: .array(.object)) { call throws(CommandFailure) in
      let node = try QOMNode(call.string("path"), call.qemu)
      return .array(node.properties(call.qemu).map { ["name": .string($0.name), "type": .string($0.type)] })
    },
    Command("qom-get", [Parameter("path", .string), Parameter("property", .string)], returns: .any) { call throws(CommandFailure) in
      let node = try QOMNode(call.string("path"), call.qemu)
      return try node.property(call.string("property"), call.qemu).value
    },
    Command("qom-set", [Parameter("path", .string), Parameter("property", .string), Parameter("value", .any)]) {
      call throws(CommandFailure) in
      let node = try QOMNode(call.string("path"), call.qemu)
      let property = try node.property(call.string("property"), call.qemu)
      guard case .monitor(let monitor) = node else { throw CommandFailure("Property '\(node.type).\(property.name)' is not writable") }
      var value = Arguments(QDict([(property.name, call.arguments["value"] ?? .null)]))
      switch property.name {
      case "pretty": monitor.isPretty = try value.optionalBoolean("pretty") ?? false
      case "close-action":
        let action = try value.enumeration("close-action", Monitor.CloseAction.allCases.map(\.rawValue))
        monitor.closeAction = Monitor.CloseAction(rawValue: action) ?? .none
      case "chardev": monitor.chardevProperty = try value.string("chardev")
      default: throw CommandFailure("Property '\(node.type).\(property.name)' is not writable")
      }
      return .nothing
    },
    Command("qom-list-get", [Parameter("paths", .array(.string))], returns: .array(.object)) { call throws(CommandFailure) in
      var all: [QObject] = []
      for path in call.arguments["paths"]?.elements ?? [] {
        let properties = try QOMNode(path.string ?? "", call.qemu).properties(call.qemu)
        all.append([
          "properties": .array(properties.map { ["name": .string($0.name), "type": .string($0.type), "value": $0.value] })
        ])
      }
      return .array(all)
    },
    Command(
      "qom-list-types", [Parameter("implements", .string, optional: true), Parameter("abstract", .boolean, optional: true)],
      returns: .array(.object)
    ) { call throws(CommandFailure) in
      .array(
        QOMType.all(call.qemu.configuration.dialect)
          .filter { type in
            (call.arguments["abstract"]?.boolean == true || !type.isAbstract)
              && (call.arguments["implements"]?.string.map { type.lineage.contains($0) } ?? true)
          }.map { type in
            var members = QDict([("name", .string(type.name)), ("parent", .string(type.lineage.dropFirst().first ?? ""))])
            if type.isAbstract { members["abstract"] = true }
            return .object(members)
          })
    },
  ]
}

/// A type of objects.
private struct QOMType {
  let name: String
  var isAbstract = false
  /// Itself, what it inherits from, and the interfaces that it has.
  let lineage: [String]

  static func all(_ dialect: SimulatedQEMU.Dialect) -> [QOMType] {
    let monitors = [
      QOMType(name: "monitor-hmp", lineage: ["monitor-hmp", "monitor", "object", "user-creatable"]),
      QOMType(name: "monitor-qmp", lineage: ["monitor-qmp", "monitor", "object", "user-creatable"]),
      QOMType(name: "monitor", isAbstract: true, lineage: ["monitor", "object", "user-creatable"]),
    ]
    let others = [
      QOMType(name: "iothread", lineage: ["iothread", "event-loop-base", "object", "user-creatable"]),
      QOMType(name: "chardev-null", lineage: ["chardev-null", "chardev", "object"]),
      QOMType(name: "chardev-socket", lineage: ["chardev-socket", "chardev", "object"]),
      QOMType(name: "chardev", isAbstract: true, lineage: ["chardev", "object"]),
    ]
    return (dialect == .object ? monitors : []) + others
  }
}

/// A place in the tree of objects.
@EventLoopActor
private enum QOMNode {
  case root, objects, chardevs, machine
  case monitor(Monitor)
  case other(String)
  case chardev(Chardev)

  struct Property {
    let name: String
    let type: String
    let value: QObject
  }

  /// Finds an object by its path, or by the end of its path.
  init(_ path: String, _ qemu: SimulatedQEMU) throws(CommandFailure) {
    let parts = path.split(separator: "/").map(String.init)
    let isAbsolute = path.hasPrefix("/")
    switch (isAbsolute, parts.count, parts.first) {
    case (true, 0, _): self = .root
    case (_, 1, "objects"): self = .objects
    case (_, 1, "chardevs"): self = .chardevs
    case (_, 1, "machine"): self = .machine
    case (_, 2, "objects"), (false, 1, _):
      if let object = Self.object(parts[parts.count - 1], qemu) { self = object } else { fallthrough }
    case (_, 2, "chardevs"):
      guard parts.count < 2 || parts[0] == "chardevs", let chardev = qemu.chardevs[parts[parts.count - 1]] else {
        throw Self.notFound(path)
      }
      self = .chardev(chardev)
    default: throw Self.notFound(path)
    }
  }

  private static func notFound(_ path: String) -> CommandFailure {
    CommandFailure("Device '\(path)' not found", class: "DeviceNotFound")
  }

  private static func object(_ id: String, _ qemu: SimulatedQEMU) -> QOMNode? {
    if qemu.configuration.dialect == .object, let monitor = qemu.monitors[id] { return .monitor(monitor) }
    return qemu.otherObjects.contains(id) ? .other(id) : nil
  }

  var type: String {
    switch self {
    case .root, .objects, .chardevs: "container"
    case .machine: "none-machine"
    case .monitor(let monitor): monitor.mode == .qmp ? "monitor-qmp" : "monitor-hmp"
    case .other: "iothread"
    case .chardev(let chardev): chardev.kind.rawValue
    }
  }

  func property(_ name: String, _ qemu: SimulatedQEMU) throws(CommandFailure) -> Property {
    guard let property = properties(qemu).first(where: { $0.name == name }) else {
      throw CommandFailure("Property '\(type).\(name)' not found")
    }
    return property
  }

  func properties(_ qemu: SimulatedQEMU) -> [Property] {
    let own = Property(name: "type", type: "string", value: .string(type))
    switch self {
    case .machine, .other, .chardev: return [own]
    case .root:
      return [
        own, Self.child("machine", "none-machine", of: ""), Self.child("objects", "container", of: ""),
        Self.child("chardevs", "container", of: ""),
      ]
    case .objects:
      let monitors = qemu.configuration.dialect == .object ? qemu.monitors.values.reversed() : []
      return [own] + monitors.map { Self.child($0.id, QOMNode.monitor($0).type, of: "/objects") }
        + qemu.otherObjects.reversed().map { Self.child($0, "iothread", of: "/objects") }
    case .chardevs: return [own] + qemu.chardevs.values.reversed().map { Self.child($0.id, $0.kind.rawValue, of: "/chardevs") }
    case .monitor(let monitor):
      let chardev = Property(name: "chardev", type: "string", value: .string(monitor.chardevProperty))
      guard monitor.mode == .qmp else { return [own, chardev, Property(name: "readline", type: "bool", value: true)] }
      return [
        own, chardev, Property(name: "pretty", type: "bool", value: .boolean(monitor.isPretty)),
        Property(name: "close-action", type: "MonitorQMPCloseAction", value: .string(monitor.closeAction.rawValue)),
      ]
    }
  }

  private static func child(_ id: String, _ type: String, of parent: String) -> Property {
    Property(name: id, type: "child<\(type)>", value: .string("\(parent)/\(id)"))
  }
}
