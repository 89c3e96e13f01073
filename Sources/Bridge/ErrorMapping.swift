import Glibc
import Machine
import QMP
import SystemPackage
import SystemdEvent
import SystemdJSON
public import Varlink

/// Every failure as the Varlink error that a caller gets, QEMU's own class and words included.
@EventLoopActor
public func varlinkError(for error: any Error) -> VarlinkError {
  switch error {
  case let error as VarlinkError: error
  case let error as MachineError: varlinkError(forMachine: error)
  case let error as QMPError: varlinkError(forMachine: .qmp(error))
  case let error as StorageError: varlinkError(forStorage: error)
  case let error as SystemdError: systemError(error.errno, [("desc", "\(error)")])
  default: systemError(.ioError, [("desc", "\(error)")])
  }
}

@EventLoopActor
private func varlinkError(forMachine error: MachineError) -> VarlinkError {
  switch error {
  case .qmp(.execute(_, let errorClass, let desc)): systemError(.ioError, [("class", errorClass), ("desc", desc)])
  case .qmp(.unreadableReply): systemError(.badMessage, [("desc", "\(error)")])
  case .qmp(.overloaded): systemError(.resourceBusy, [("desc", "\(error)")])
  case .qmp(.notSent(let errno)): systemError(errno, [("desc", "\(error)")])
  case .qmp(.timedOut):
    VarlinkError("io.systemd.QemuMachineInstance.NotResponding", .object(["reason": .string("QEMU does not answer; that may pass")]))
  case .qmp, .startFailed, .option: VarlinkError("io.systemd.MachineInstance.NotConnected", .object(["reason": .string("\(error)")]))
  case .monitor(let error): varlinkError(forMonitor: error)
  case .notSupported(let reason): VarlinkError("io.systemd.MachineInstance.NotSupported", .object(["reason": .string(reason)]))
  case .system(let error): systemError(error.errno, [("desc", "\(error)")])
  }
}

@EventLoopActor
private func varlinkError(forMonitor error: MonitorError) -> VarlinkError {
  let (name, parameter, value) =
    switch error {
    case .exists(let id): ("MonitorExists", "id", id)
    case .noSuchMonitor(let id): ("NoSuchMonitor", "id", id)
    case .noSuchChardev(let chardev): ("NoSuchChardev", "chardev", chardev)
    case .chardevInUse(let chardev): ("ChardevInUse", "chardev", chardev)
    case .notDynamic(let id): ("NotDynamic", "id", id)
    case .notQMP(let id): ("NotQMP", "id", id)
    case .isControlMonitor(let id): ("IsControlMonitor", "id", id)
    }
  return VarlinkError("io.qmpvarlink.Monitors.\(name)", .object([(parameter, .string(value))]))
}

@EventLoopActor
private func varlinkError(forStorage error: StorageError) -> VarlinkError {
  let desc = [("desc", "\(error)")]
  return switch error {
  case .exists: VarlinkError("io.systemd.MachineInstance.StorageExists")
  case .notFound: VarlinkError("io.systemd.MachineInstance.NoSuchStorage")
  case .immutable: VarlinkError("io.systemd.MachineInstance.StorageImmutable")
  case .notSupported(let reason): VarlinkError("io.systemd.MachineInstance.ConfigNotSupported", .object(["reason": .string(reason)]))
  case .busy: systemError(.resourceBusy, desc)
  case .readOnly: systemError(.readOnlyFileSystem, desc)
  case .unsuitable(let errno, _): systemError(errno, desc)
  case .noPortLeft: systemError(.noSpace, desc)
  case .machine(let error): varlinkError(forMachine: error)
  }
}

/// systemd's error for an errno, as vmspawn replies it, with what more is known.
@EventLoopActor
private func systemError(_ errno: Errno, _ details: [(String, String)]) -> VarlinkError {
  var parameters: [(String, JSONVariant)] = [("origin", .string("linux")), ("errno", .integer(errno.rawValue))]
  if let name = errnoNames[errno] { parameters.append(("errnoName", .string(name))) }
  parameters += details.map { ($0, .string($1)) }
  return VarlinkError("io.systemd.System", .object(parameters))
}

/// The names of those that our own calls are known to fail with.
private let errnoNames: [Errno: String] = [
  .ioError: "EIO", .resourceBusy: "EBUSY", .invalidArgument: "EINVAL", .tooManyOpenFiles: "EMFILE",
  .tooManyOpenFilesInSystem: "ENFILE", .noMemory: "ENOMEM", .noBufferSpace: "ENOBUFS", .permissionDenied: "EACCES",
  .notPermitted: "EPERM", .noSuchFileOrDirectory: "ENOENT", .socketNotConnected: "ENOTCONN",
  .notSocket: "ENOTSOCK", .addressInUse: "EADDRINUSE", .fileNameTooLong: "ENAMETOOLONG",
  Errno(rawValue: ENXIO): "ENXIO", .badFileDescriptor: "EBADF", Errno(rawValue: EBADFD): "EBADFD", .isDirectory: "EISDIR",
  .readOnlyFileSystem: "EROFS", .noSpace: "ENOSPC", .badMessage: "EBADMSG",
]
