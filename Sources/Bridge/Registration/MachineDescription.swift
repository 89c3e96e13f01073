import Glibc
public import SystemPackage
public import SystemdEvent
public import SystemdJSON

/// What systemd-machined is told of a machine: the parameters of `io.systemd.Machine.Register` in systemd 262. What is nil is not told.
public struct MachineDescription: Sendable {
  public var name: String
  /// 32 hexadecimal digits.
  public var id: String?
  /// The program that manages the machine.
  public var service = "qmp-varlinkd"
  /// The process that the machine lives and dies with; without one machined takes the caller.
  public var leader: ProcessIdentity?
  /// Where `io.systemd.MachineInstance` is served.
  public var controlAddress: FilePath
  public var vsockCID: UInt32?
  /// The host's network interfaces that lead to the machine.
  public var networkInterfaces: [Int32] = []
  /// The host's folder that the guest has for its root.
  public var rootDirectory: FilePath?
  public var sshAddress: String?
  public var sshPrivateKey: FilePath?
  /// Whether machined puts the leader into a scope unit of its own; otherwise it is in one already.
  public var allocatesUnit = false
  /// Whether machined may have polkit ask the user, which takes a terminal.
  public var allowsInteractiveAuthentication = isatty(STDIN_FILENO) != 0

  public init(name: String, controlAddress: FilePath) {
    self.name = name
    self.controlAddress = controlAddress
  }

  /// In the order in which systemd-vmspawn gives them.
  @EventLoopActor public var parameters: JSONVariant {
    .object([
      "name": .string(name),
      "id": id.map { .string($0) },
      "service": .string(service),
      "class": .string("vm"),
      "vSockCid": vsockCID.map { .integer($0) },
      "ifIndices": networkInterfaces.isEmpty ? nil : .array(networkInterfaces.map { .integer($0) }),
      "rootDirectory": rootDirectory.map { .string($0.string) },
      "sshAddress": sshAddress.map { .string($0) },
      "sshPrivateKeyPath": sshPrivateKey.map { .string($0.string) },
      "controlAddress": .string(controlAddress.string),
      "allowInteractiveAuthentication": allowsInteractiveAuthentication ? .boolean(true) : nil,
      "allocateUnit": allocatesUnit ? .boolean(true) : nil,
      "leaderProcessId": leader?.variant,
    ])
  }
}

extension ProcessIdentity {
  /// As machined's interface has it (`ProcessId`).
  @EventLoopActor var variant: JSONVariant {
    .object(["pid": .integer(id), "pidfdId": descriptorInode.map { .integer($0) }, "bootId": boot.map { .string($0) }])
  }
}
