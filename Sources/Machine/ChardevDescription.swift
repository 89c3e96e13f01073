import SystemPackage
import SystemdEvent
import SystemdJSON

/// What QEMU tells of a chardev (`query-chardev`).
struct ChardevDescription {
  let id: String
  /// The other end has gone, or never came.
  let isDisconnected: Bool
  /// Nothing in QEMU uses it.
  let isUnused: Bool
  /// The path that it listens at, if it is a UNIX socket that does and has one: those in the abstract namespace have none.
  let listensAt: FilePath?

  @EventLoopActor
  init?(_ chardev: JSONVariant) {
    guard let id = chardev["label"]?.string else { return nil }
    self.id = id
    isUnused = chardev["frontend-open"]?.boolean == false
    let filename = chardev["filename"]?.string ?? ""
    let disconnected = "disconnected:"
    isDisconnected = filename.hasPrefix(disconnected)
    let address = isDisconnected ? filename.dropFirst(disconnected.count) : filename[...]
    let options = address.dropFirst("unix:".count).split(separator: ",", omittingEmptySubsequences: false)
    let isListening = address.hasPrefix("unix:") && options.contains("server=on") && !options.contains("abstract=on")
    listensAt = isListening ? FilePath(String(options[0])) : nil
  }
}
