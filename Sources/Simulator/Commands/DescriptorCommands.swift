import QEMUJSON
import SystemdEvent

extension Command {
  /// The commands for descriptors that come with SCM_RIGHTS.
  static let descriptors: [Command] = [
    Command("getfd", [Parameter("fdname", .string)]) { call throws(CommandFailure) in
      let name = call.string("fdname")
      guard let descriptor = call.monitor.chardev.connection?.takeDescriptor() else { throw .noDescriptor }
      guard !(name.first?.isNumber ?? false) else { throw CommandFailure("Parameter 'fdname' expects a name not starting with a digit") }
      try call.qemu.requireRoomForDescriptor()
      call.monitor.descriptors[name] = HeldDescriptor(descriptor)
      return .nothing
    },
    Command("closefd", [Parameter("fdname", .string)]) { call throws(CommandFailure) in
      let name = call.string("fdname")
      guard call.monitor.descriptors.removeValue(forKey: name) != nil else {
        throw CommandFailure("File descriptor named '\(name)' not found")
      }
      return .nothing
    },
    Command("add-fd", [Parameter("fdset-id", .integer, optional: true), Parameter("opaque", .string, optional: true)]) {
      call throws(CommandFailure) in
      guard let descriptor = call.monitor.chardev.connection?.takeDescriptor() else { throw .noDescriptor }
      let number = Int64(descriptor.raw)
      try call.qemu.requireRoomForDescriptor()
      let set = try call.qemu.fdsets.add(descriptor, to: call.arguments["fdset-id"]?.integer, opaque: call.arguments["opaque"]?.string)
      return ["fdset-id": .integer(set), "fd": .integer(number)]
    },
    Command("remove-fd", [Parameter("fdset-id", .integer), Parameter("fd", .integer, optional: true)]) { call throws(CommandFailure) in
      try call.qemu.fdsets.remove(call.arguments["fd"]?.integer, from: call.arguments["fdset-id"]?.integer ?? 0)
      return .nothing
    },
    Command("query-fdsets", returns: .array(.object)) { call throws(CommandFailure) in call.qemu.fdsets.description },
  ]
}

extension CommandFailure {
  fileprivate static var noDescriptor: CommandFailure { CommandFailure("No file descriptor supplied via SCM_RIGHTS") }
}

/// The sets of descriptors that add-fd fills: shared by all monitors, and longer-lived than each.
@EventLoopActor
struct DescriptorSets {
  private struct Entry {
    let held: HeldDescriptor
    let opaque: String?
    var number: Int64 { Int64(held.descriptor.raw) }
  }
  private var sets: [Int64: [Entry]] = [:]

  /// The ids of the sets.
  var ids: [Int64] { sets.keys.sorted() }
  /// How many descriptors there are in all of them.
  var count: Int { sets.values.reduce(0) { $0 + $1.count } }

  /// - Returns: the id of the set, which is the smallest free one if none is asked for.
  mutating func add(_ descriptor: consuming OwnedDescriptor, to id: Int64?, opaque: String?) throws(CommandFailure) -> Int64 {
    if let id, id < 0 { throw CommandFailure("Parameter 'fdset-id' expects a non-negative value") }
    let id = id ?? (0...Int64.max).first { sets[$0] == nil } ?? 0
    sets[id, default: []].insert(Entry(held: HeldDescriptor(descriptor), opaque: opaque), at: 0)
    return id
  }

  mutating func remove(_ number: Int64?, from id: Int64) throws(CommandFailure) {
    guard let number else {
      guard sets.removeValue(forKey: id) != nil else { throw CommandFailure("File descriptor named 'fdset-id:\(id)' not found") }
      return
    }
    guard let index = sets[id]?.firstIndex(where: { $0.number == number }) else {
      throw CommandFailure("File descriptor named 'fdset-id:\(id), fd:\(number)' not found")
    }
    sets[id]?.remove(at: index)
    if sets[id]?.isEmpty == true { sets[id] = nil }
  }

  mutating func removeAll() { sets = [:] }

  /// The reply to query-fdsets.
  var description: QObject {
    .array(
      sets.sorted { $0.key > $1.key }.map { id, entries in
        let list = entries.map { entry in
          var members = QDict([("fd", .integer(entry.number))])
          if let opaque = entry.opaque { members["opaque"] = .string(opaque) }
          return QObject.object(members)
        }
        return ["fdset-id": .integer(id), "fds": .array(list)]
      })
  }
}
