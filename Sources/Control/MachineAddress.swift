import Glibc
public import SystemPackage
import SystemdEvent

/// Where a machine is.
public struct MachineAddress: Sendable {
  /// What the user calls it. A remote host's word if it is there: untrusted text.
  public let name: String
  /// Its control socket; on `host`, if there is one.
  public let socket: FilePath
  public let host: SSHHost?
  /// What a remote host told of the process that serves it.
  public let process: ServingProcess?

  public init(name: String, socket: FilePath, host: SSHHost? = nil, process: ServingProcess? = nil) {
    self.name = name
    self.socket = socket
    self.host = host
    self.process = process
  }
}

/// The folders of this host that machines are in, each in one of its own that has its name.
public struct MachineFolders: Sendable {
  /// In the order in which a name is looked for.
  public let paths: [FilePath]
  /// The longest list of machines that is made of them.
  private static let mostMachines = 4096

  public init(_ paths: [FilePath]) { self.paths = paths }

  /// Where daemons put their sockets by default: the user's own first, then the system's. `$QMPCTL_PATH`, with colons between the
  /// folders, stands for others.
  public static func standard(
    environment: (String) -> String? = ProcessEnvironment.value, isRoot: Bool? = nil
  ) -> MachineFolders {
    if let path = environment("QMPCTL_PATH"), !path.isEmpty {
      return MachineFolders(path.split(separator: ":").map { FilePath(String($0)) })
    }
    let system = FilePath("/run/qmp-varlink")
    guard let runtime = environment("XDG_RUNTIME_DIR"), !runtime.isEmpty else { return MachineFolders([system]) }
    let own = FilePath(runtime).appending("qmp-varlink")
    return MachineFolders(isRoot ?? (geteuid() == 0) ? [system, own] : [own, system])
  }

  /// All machines, by name; of two with one name the one that the name alone stands for comes first. A socket is all that is known of
  /// them: somebody may listen at it, or not.
  public var machines: [MachineAddress] {
    var found: [MachineAddress] = []
    for folder in paths {
      guard let entries = opendir(folder.string) else { continue }
      defer { closedir(entries) }
      while let entry = readdir(entries), found.count < Self.mostMachines {
        let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let socket = folder.appending(name).appending("control")
        if !name.hasPrefix("."), Self.isSocket(socket) { found.append(MachineAddress(name: name, socket: socket)) }
      }
    }
    // Stable in effect: folders are told apart by their order.
    return found.enumerated().sorted { ($0.element.name, $0.offset) < ($1.element.name, $1.offset) }.map(\.element)
  }

  /// The machine of that name, or at that path: what has a slash is the path of a control socket, or of the folder that it is in.
  ///
  /// - Throws: ``ControlError`` that tells which machines there are.
  public func machine(_ name: String) throws(ControlError) -> MachineAddress {
    if name.contains("/") { return try Self.machine(at: FilePath(name)) }
    guard !name.isEmpty, name != ".", name != ".." else {
      throw ControlError(.unreachable, "'\(name)' is no machine's name", hint: Self.hint(machines.map(\.name)))
    }
    for folder in paths {
      let socket = folder.appending(name).appending("control")
      var status = stat()
      if stat(socket.string, &status) == 0 {
        if status.st_mode & S_IFMT == S_IFSOCK { return MachineAddress(name: name, socket: socket) }
      } else if errno == EACCES {
        // A folder that is not to be looked into is another user's.
        throw MachineConnection.permissionDenied(name)
      }
    }
    throw ControlError(.unreachable, "there is no machine '\(name)'", hint: Self.hint(machines.map(\.name)))
  }

  private static func machine(at path: FilePath) throws(ControlError) -> MachineAddress {
    var status = stat()
    guard stat(path.string, &status) == 0 else {
      throw ControlError(.unreachable, "\(path): \(Errno(rawValue: errno))", hint: "NAME with a slash is the path of a control socket.")
    }
    let isFolder = status.st_mode & S_IFMT == S_IFDIR
    let socket = isFolder ? path.appending("control") : path
    guard isSocket(socket) else {
      throw ControlError(.unreachable, "\(socket) is no socket", hint: "NAME with a slash is the path of a control socket.")
    }
    // The folder has the machine's name.
    let folder = socket.removingLastComponent().lastComponent?.string
    return MachineAddress(name: socket.lastComponent == "control" ? folder ?? path.string : path.string, socket: socket)
  }

  /// Which names there are, for one that there is not.
  static func hint(_ names: [String]) -> String {
    guard !names.isEmpty else { return "There are none here. Is it another user's, or does its daemon not run?" }
    let shown = names.prefix(20).joined(separator: ", ")
    return "There \(names.count == 1 ? "is" : "are"): \(shown)\(names.count > 20 ? ", … ('qmpctl list' has them all)" : "")"
  }

  private static func isSocket(_ path: FilePath) -> Bool {
    var status = stat()
    return stat(path.string, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
  }
}
