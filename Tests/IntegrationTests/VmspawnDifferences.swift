import SystemdEvent
import SystemdJSON

/// Where our replies are not those of systemd-vmspawn 262, and why. Whatever is not here must be the same.
enum VmspawnDifferences {
  /// A member of messages that only ours have.
  struct Addition: Sendable {
    let member: String
    /// In which messages: by their error, if they are one.
    let isIn: @Sendable (_ error: String?) -> Bool
    let reason: String
  }

  static let additions = [
    Addition(
      member: "class", isIn: { $0 == "io.systemd.System" }, reason: "QEMU's own error class: vmspawn has the errno alone"),
    Addition(
      member: "desc", isIn: { $0 == "io.systemd.System" }, reason: "QEMU's own words, or ours: vmspawn has them in its log only"),
    Addition(
      member: "reason", isIn: { $0?.hasPrefix("io.systemd.MachineInstance.") == true }, reason: "why the machine is gone, or cannot"),
    Addition(member: "timestamp", isIn: { $0 == nil }, reason: "QEMU's timestamp on events: vmspawn drops it"),
  ]

  struct Difference {
    let step: String
    let theirs: String
    let ours: String
    let reason: String
    /// Whether it depends on who is quicker, so that there may be none.
    var isMatterOfTiming = false
  }

  private static let eio = #"{"error":"io.systemd.System","parameters":{"origin":"linux","errno":5,"errnoName":"EIO"}}"#
  private static let erofs = #"{"error":"io.systemd.System","parameters":{"origin":"linux","errno":30,"errnoName":"EROFS"}}"#
  private static func invalid(_ parameter: String) -> String {
    #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"\#(parameter)"}}"#
  }

  static let table: [Difference] =
    ["absent", #""""#, #""virtio-blk""#, #""nvme""#].map {
      Difference(
        step: "add, config \($0)", theirs: eio, ours: "{}",
        reason:
          "vmspawn 262.1 plugs these into the root bus, which takes nothing while the machine runs; its spare ports it gives to SCSI only")
    } + [
      Difference(
        step: "add virtio-blk, read-only descriptor", theirs: eio, ours: "{}", reason: "the same"),
      Difference(
        step: "add, descriptor for both, scsi-cd", theirs: eio, ours: "{}",
        reason: "vmspawn opens the file read-only, which QEMU refuses for a descriptor that can write; ours is read-only one node above"),
      Difference(
        step: "replace CD, descriptor for both", theirs: eio, ours: "{}", reason: "the same"),
      Difference(
        step: "replace read-only drive by a read-only file, again", theirs: erofs, ours: "{}",
        reason: "vmspawn takes the drive for writable once it had a file that is; for the guest it is read-only as before"),
      Difference(
        step: #"add, index "0""#, theirs: "{}", ours: invalid("fileDescriptorIndex"),
        reason: "the interface says int; vmspawn takes a text for one"),
      Difference(
        step: "add, config null", theirs: invalid("config"), ours: "{}", reason: "the interface says that it may be null"),
      Difference(
        step: "oneway, then Describe", theirs: "{}", ours: #"{"parameters":{"running":true,"status":"running"}}"#,
        reason: "vmspawn answers a oneway call once QEMU has, unless the next call is there first; the caller takes that for its reply",
        isMatterOfTiming: true),
    ]

  /// Whether vmspawn closed the connection where ours had the last event of a machine: it has that event too, and often ends before it is
  /// sent, whatever ended the machine.
  @EventLoopActor static func isLastEventLost(theirs: String, ours: String) -> Bool {
    guard theirs == "the end", let parameters = (try? JSONVariant(parsing: ours))?["parameters"] else { return false }
    return parameters["event"]?.string == "SHUTDOWN"
  }
}

extension VmspawnDifferences {
  /// A message without what is always different.
  @EventLoopActor static func withoutAdditions(_ message: String) -> String {
    guard let value = try? JSONVariant(parsing: message) else { return message }
    let error = value["error"]?.string
    let members = (value.members ?? []).compactMap { name, member -> (String, JSONVariant)? in
      guard name == "parameters", let parameters = member.members else { return (name, member) }
      let kept = parameters.filter { parameter in !additions.contains { $0.member == parameter.name && $0.isIn(error) } }
      return kept.isEmpty ? nil : (name, .object(kept.map { ($0.name, $0.value) }))
    }
    // Each has ids of its own for devices.
    return JSONVariant.object(members).text.replacing(/(vmspawn-[0-9]+-disk|qv-d[-._0-9A-Za-z]+)/, with: "DEVICE")
  }
}
