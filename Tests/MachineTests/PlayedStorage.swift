import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport

@testable import Machine
@testable import QMP

/// A QEMU that is played, with as much of a block layer as storage needs: what is in it can be looked at.
@EventLoopActor
final class PlayedStorage {
  /// All that there is of storage in QEMU.
  struct Contents: Equatable {
    /// Sets of descriptors that were added and not removed.
    var sets: Set<String> = []
    /// Nodes, and the node that each is on, or its file.
    var nodes: [String: String] = [:]
    /// Devices, and their buses.
    var devices: [String: String] = [:]
    /// Their drivers.
    var drivers: [String: String] = [:]
    /// The nodes that devices are on.
    var drives: [String: String] = [:]
  }

  private(set) var contents = Contents()
  /// Whether guests let go of PCI devices at once. SCSI drives go in any case.
  var guestLetsGo = true
  /// A device that goes just before a command, which is told by the beginning of its name and path.
  var leaves: (before: String, device: String)?
  /// The command to refuse, counted from now; 0 for none.
  var refused = 0
  /// From which command on replies are held back, counted from now; 0 for none.
  var heldBack = 0
  /// At which command, counted from now, the client gets impatient; 0 for none.
  var impatient = 0
  let storage: Storage
  let control: ControlMonitor
  let client: QMPClient
  let qemu: ScriptedQEMU
  private let ports: Int
  private let drivesBefore: String
  private var held: [String]?

  /// - Parameter drivesBefore: the elements of the reply to `query-block`.
  init(ports: Int = 10, drivesBefore: String = "", contents: Contents = Contents()) throws {
    self.ports = ports
    self.drivesBefore = drivesBefore
    self.contents = contents
    let (ours, theirs) = try socketPair()
    client = try QMPClient(OwnedDescriptor(owning: ours))
    control = ControlMonitor(client, id: nil, responseLimit: patience, logger: ScriptedQEMU.silent)
    // Tests set their own.
    client.responseLimit = nil
    storage = Storage(control: control, logger: ScriptedQEMU.silent)
    control.onEvent = { [storage] in storage.handle($0) }
    var answer: () -> String? = { nil }
    qemu = try ScriptedQEMU(theirs) { _ in answer() }
    answer = { [weak self] in self?.answer() }
  }

  /// The commands that came after the first `count`, by name.
  func names(after count: Int) throws -> [String] {
    try qemu.commands[count...].map { try JSONVariant(parsing: $0)["execute"]?.string ?? "" }
  }

  /// Sends what was held back, and answers from now on.
  func answerAgain() async throws {
    let replies = held ?? []
    held = nil
    heldBack = 0
    for reply in replies { try await qemu.peer.write(reply) }
  }

  /// Waits until nothing is under way.
  func settle() async throws {
    await storage.idle(within: patience)
    try await quiet()
  }

  /// The guest lets go of a device that it was asked to.
  func letGo(_ id: String) async throws { try await qemu.peer.write(deleted(id)) }

  private func answer() -> String? {
    guard let text = qemu.commands.last, let command = try? JSONVariant(parsing: text) else { return nil }
    if let id = command["id"] {
      // The client asks whether it is answered again. That is none of the commands that tests count.
      let reply = #"{"return": {}, "id": \#(id)}"#
      if held == nil { return reply }
      held?.append(reply)
      return nil
    }
    if impatient == 1 { client.responseLimit = .milliseconds(20) }
    if impatient > 0 { impatient -= 1 }
    if heldBack == 1, held == nil { held = [] }
    if heldBack > 1 { heldBack -= 1 }
    var reply = ScriptedQEMU.refusal("played")
    if refused != 1 { reply = execute(command["execute"]?.string ?? "", command["arguments"] ?? .object([])) }
    if refused > 0 { refused -= 1 }
    guard held == nil else {
      held?.append(reply)
      return nil
    }
    return reply
  }

  private func execute(_ name: String, _ arguments: JSONVariant) -> String {
    let id = arguments["id"]?.string ?? ""
    let node = arguments["node-name"]?.string ?? ""
    if let (command, device) = leaves, "\(name) \(arguments["path"]?.string ?? "")".hasPrefix(command) {
      leaves = nil
      return deleted(device) + execute(name, arguments)
    }
    switch name {
    case "qom-list": return list(arguments["path"]?.string ?? "")
    case "query-block": return #"{"return": [\#(drivesBefore)]}"#
    case "query-named-block-nodes":
      return returning(
        contents.nodes.map { node, below in
          let children = contents.nodes[below] == nil ? "" : #"{"child": "file", "node-name": "\#(below)"}"#
          return #"{"node-name": "\#(node)", "ro": false, "image": {"virtual-size": 512}, "children": [\#(children)]}"#
        })
    case "qom-get":
      let device = String(arguments["path"]?.string?.split(separator: "/").last ?? "")
      guard let bus = contents.devices[device] else { return ScriptedQEMU.refusal("no \(device)") }
      let parent = bus.hasSuffix(".0") ? String(bus.dropLast(2)) : bus
      return #"{"return": "/machine/peripheral/\#(parent)/\#(bus)"}"#
    case "add-fd":
      contents.sets.insert("/dev/fdset/\(arguments["fdset-id"] ?? .null)")
    case "remove-fd":
      guard contents.sets.remove("/dev/fdset/\(arguments["fdset-id"] ?? .null)") != nil else { return ScriptedQEMU.refusal("no set") }
    case "blockdev-add":
      let below = arguments["filename"]?.string ?? arguments["file"]?.string ?? ""
      guard contents.nodes[node] == nil else { return ScriptedQEMU.refusal("duplicate \(node)") }
      guard contents.sets.contains(below) || contents.nodes[below] != nil else { return ScriptedQEMU.refusal("no \(below)") }
      contents.nodes[node] = below
    case "blockdev-reopen":
      let options = arguments["options"]?.elements?.first
      guard let node = options?["node-name"]?.string, let file = options?["file"]?.string, contents.nodes[node] != nil,
        contents.nodes[file] != nil
      else { return ScriptedQEMU.refusal("cannot reopen") }
      contents.nodes[node] = file
    case "blockdev-del":
      guard contents.nodes[node] != nil else { return ScriptedQEMU.refusal("Failed to find node with node-name='\(node)'") }
      guard !contents.nodes.values.contains(node), !contents.drives.values.contains(node) else {
        return ScriptedQEMU.refusal("Node '\(node)' is busy")
      }
      contents.nodes[node] = nil
    case "device_add":
      let drive = arguments["drive"]?.string
      guard contents.devices[id] == nil, drive.map({ contents.nodes[$0] != nil }) ?? true else { return ScriptedQEMU.refusal("no") }
      contents.devices[id] = arguments["bus"]?.string ?? ""
      contents.drivers[id] = arguments["driver"]?.string
      contents.drives[id] = drive
    case "device_del":
      guard let bus = contents.devices[id] else { return #"{"error": {"class": "DeviceNotFound", "desc": "Device '\#(id)' not found"}}"# }
      if guestLetsGo || bus.hasSuffix(".0") { return ScriptedQEMU.done + deleted(id) }
    default: break
    }
    return ScriptedQEMU.done
  }

  private func deleted(_ id: String) -> String {
    contents.devices[id] = nil
    contents.drivers[id] = nil
    contents.drives[id] = nil
    return #"{"timestamp": {}, "event": "DEVICE_DELETED", "data": {"device": "\#(id)", "path": "/machine/peripheral/\#(id)"}}"#
  }

  private func list(_ path: String) -> String {
    guard path != "/machine/peripheral" else {
      return returning(
        ((0..<ports).map(HotplugPorts.id) + contents.devices.keys).map {
          #"{"name": "\#($0)", "type": "child<\#(contents.drivers[$0] ?? "pcie-root-port")>"}"#
        })
    }
    let bus = String(path.split(separator: "/").last ?? "")
    return returning(contents.devices.values.contains(bus) ? [#"{"name": "hotplug-handler"}"#, #"{"name": "child[0]"}"#] : [])
  }

  private func returning(_ elements: [String]) -> String { #"{"return": [\#(elements.sorted().joined(separator: ", "))]}"# }
}

extension BackingFile {
  /// An empty file that nobody else has, or as much of one as is asked for.
  static func temporary(readOnly: Bool = false, size: Int = 0) throws -> BackingFile {
    let folder = try TemporaryFolder()
    let path = try folder.file("image", [UInt8](repeating: 0, count: size))
    return try BackingFile(OwnedDescriptor(owning: open(path.string, (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC)))
  }
}
