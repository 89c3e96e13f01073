import QMP
import SystemPackage
import SystemdEvent
import SystemdJSON

/// The commands that make a block node of a descriptor, for one write.
///
/// The descriptor goes into a set of its own, the node takes it from there, and the set is removed again right behind: it lives on
/// unseen as long as the node does, and goes with it.
@EventLoopActor
struct FileNode {
  /// The sets that callers of QEMU make are numbered from 0. Ours begin far from there, with the letters QV; what is removed is a
  /// whole set, and must not be somebody else's. QEMU takes no more than 31 bits.
  private static let firstSet = 0x5156_0000

  let id: String
  let backing: BackingFile
  private let set: JSONVariant
  /// Where QEMU opens the file itself, if a descriptor will not do.
  private let path: FilePath?

  init(id: String, set number: Int, _ backing: BackingFile, path: FilePath? = nil) {
    self.id = id
    self.backing = backing
    self.path = path
    set = .integer(Self.firstSet + number)
  }

  /// What makes the node; the results' order is that of ``Step``.
  var commands: [QMPCommand] {
    let options = JSONVariant.object([
      "driver": .string(backing.isBlockDevice ? "host_device" : "file"), "node-name": .string(id),
      "filename": .string(path?.string ?? "/dev/fdset/\(set)"), "read-only": .boolean(backing.isReadOnly),
    ])
    if path != nil { return [QMPCommand("blockdev-add", options)] }
    return [
      QMPCommand("add-fd", .object(["fdset-id": set]), descriptors: [backing.raw]),
      QMPCommand("blockdev-add", options),
      removeSet,
    ]
  }

  /// The places of the commands.
  enum Step: Int {
    case addDescriptor, addNode, removeSet
  }

  var removeSet: QMPCommand { QMPCommand("remove-fd", .object(["fdset-id": set])) }

  /// Notes what must be taken back of those commands.
  func note(_ results: [Result<JSONVariant, QMPError>], in undo: inout UndoList) {
    if results[Step.addDescriptor.rawValue].failure == nil, results[Step.removeSet.rawValue].failure != nil { undo.append(removeSet) }
    if results[Step.addNode.rawValue].failure == nil { undo.append(.nodeDelete(id)) }
  }
}
