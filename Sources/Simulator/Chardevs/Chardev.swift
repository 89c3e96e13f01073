import Glibc
import SystemdEvent
import SystemPackage

/// A character device: what a monitor speaks through, or nothing yet.
@EventLoopActor
final class Chardev {
  enum Kind: String {
    case null = "chardev-null"
    case socket = "chardev-socket"
  }

  let id: String
  let kind: Kind
  /// Where the socket is, as QEMU tells it: `unix:PATH,server=on`, `fd:NAME`.
  private let address: String
  private let listener: Listener?
  private let longestUnsent: Int
  private(set) var connection: Connection?
  /// The monitor that has it in use.
  private(set) weak var frontend: Monitor?

  /// Takes nothing in and keeps nothing.
  init(null id: String) {
    self.id = id
    kind = .null
    address = "null"
    listener = nil
    longestUnsent = 0
  }

  /// A connected socket that had the name `name`.
  init(_ id: String, connected socket: consuming OwnedDescriptor, name: String, longestUnsent: Int) {
    self.id = id
    kind = .socket
    address = name
    listener = nil
    self.longestUnsent = longestUnsent
    connection = Connection(socket, longestUnsent: longestUnsent)
  }

  /// A socket that clients connect to.
  init(_ id: String, listening listener: Listener, longestUnsent: Int) {
    self.id = id
    kind = .socket
    address = "unix:\(listener.path),server=on"
    self.listener = listener
    self.longestUnsent = longestUnsent
    listener.onClient = { [weak self] in self?.admit($0) }
    listener.accepts = true
  }

  var isConnected: Bool { connection != nil }
  /// The path that it listens at, if it does.
  var path: FilePath? { listener.map { FilePath($0.path) } }

  /// What query-chardev calls it.
  var filename: String {
    guard kind == .socket else { return address }
    guard isConnected else { return "disconnected:\(address)" }
    return listener == nil ? "unix:" : address
  }

  /// Puts it in use. A client that is there already is the monitor's from now on; one that has gone meanwhile never was.
  func attach(_ monitor: Monitor) {
    frontend = monitor
    if connection?.hasHungUp == true { drop() }
    if connection != nil { open() }
  }

  /// Ends its use. The client notices nothing yet, and nothing of it is noticed.
  func detach() {
    frontend = nil
    connection?.stopWatching()
  }

  func write(_ bytes: [UInt8]) { connection?.write(bytes) }

  /// Lets go of the client, and lets the next one in.
  func disconnect() {
    guard connection != nil else { return }
    drop()
    frontend?.closed()
  }

  /// Ends everything. `removingFile` is false for a QEMU that is killed.
  func close(removingFile: Bool = true) {
    // Whoever sees the connection's end finds no socket any more.
    listener?.close(removingFile: removingFile)
    connection?.close()
    connection = nil
  }

  private func drop() {
    connection?.close()
    connection = nil
    listener?.accepts = true
  }

  private func admit(_ client: consuming OwnedDescriptor) {
    listener?.accepts = false
    connection = Connection(client, longestUnsent: longestUnsent)
    if frontend != nil { open() }
  }

  private func open() {
    connection?.onInput = { [weak self] in self?.frontend?.received($0) }
    connection?.onEndOfInput = { [weak self] in self?.frontend?.receivedEnd() }
    connection?.onHangUp = { [weak self] in self?.disconnect() }
    frontend?.opened()
  }
}
