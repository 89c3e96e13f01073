import CSystemd
import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON

/// The service manager that started this process, if one did (sd_notify).
@EventLoopActor
enum ServiceManager {
  /// Whether this process is what the manager runs as a service, and not a descendant of that.
  nonisolated static var runsThisProcess: Bool { getenv("SYSTEMD_EXEC_PID").flatMap { Int32(String(cString: $0)) } == getpid() }

  /// The service is up. Under systemd-vmspawn's name for it, callers learn the process that the machine lives and dies with.
  static func ready(_ status: String, leader: Int32?) {
    notify("READY=1\nSTATUS=\(status)" + (leader.map { "\nX_VMSPAWN_LEADER_PID=\($0)" } ?? ""))
  }
  /// What the service is at.
  static func status(_ status: String) { notify("STATUS=\(status)") }
  /// The service is on its way down.
  static func stopping(_ status: String) { notify("STOPPING=1\nSTATUS=\(status)") }

  /// The descriptors that the manager started this process with (sd_listen_fds(3)), close-on-exec from now on. They are given once, and
  /// no longer told of in the environment.
  ///
  /// - Returns: each with its name (`FileDescriptorName=`, or the one under which a run before has stored it).
  nonisolated static func takeDescriptors() throws(SystemdError) -> [(descriptor: CInt, name: String)] {
    var names: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
    let count = sd_listen_fds_with_names(1, &names)
    guard count >= 0 else { throw SystemdError("sd_listen_fds", Errno(rawValue: -count)) }
    defer {
      for index in 0..<Int(count) { free(names?[index]) }
      free(names)
    }
    return (0..<count).map { index in
      (SD_LISTEN_FDS_START + index, names?[Int(index)].map { String(cString: $0) } ?? "")
    }
  }

  // MARK: descriptors that it keeps

  /// Whether it keeps descriptors for the next run of the service (`FileDescriptorStoreMax=`).
  static var keepsDescriptors: Bool {
    // It takes none of another process.
    runsThisProcess && getenv("NOTIFY_SOCKET") != nil && getenv("FDSTORE").flatMap { Int(String(cString: $0)) } ?? 0 > 0
  }

  /// How long it may take to take them.
  private static let storeLimit = Duration.seconds(10)

  /// Why it does not keep what it is asked to.
  struct Refusal: Error, CustomStringConvertible { let description: String }

  /// - Throws: if it does not keep as many descriptors.
  static func checkRoom(for count: Int) throws(Refusal) {
    guard let room = getenv("FDSTORE").flatMap({ Int(String(cString: $0)) }), room < count else { return }
    throw Refusal(description: "the service manager keeps \(room) descriptors, and there are \(count) (FileDescriptorStoreMax=)")
  }

  /// Has it keep descriptors, and waits until it has them.
  static func store(_ descriptors: [(name: String, descriptor: CInt)]) throws {
    let deadline = ContinuousClock.now + storeLimit
    for (name, descriptor) in descriptors {
      guard socket()?.wait(until: deadline) ?? true else { throw Refusal(description: "the service manager does not read what it is told") }
      var descriptor = descriptor
      // It is to keep also what its other end has left: the next run must learn of that.
      try check("sd_pid_notify_with_fds", sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDPOLL=0\nFDNAME=\(name)", &descriptor, 1))
    }
    try check("sd_notify_barrier", sd_notify_barrier(0, UInt64(storeLimit.components.seconds) * 1_000_000))
  }

  /// Has it let go of what a run before had stored.
  static func forget(_ names: [String]) { for name in names { notify("FDSTOREREMOVE=1\nFDNAME=\(name)") } }

  /// The service is busy with becoming another run of itself.
  static func reloading() {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    notify("RELOADING=1\nMONOTONIC_USEC=\(now.tv_sec * 1_000_000 + now.tv_nsec / 1000)")
  }

  /// Whether a descriptor is a UNIX stream socket that listens, or that does not.
  nonisolated static func isStreamSocket(_ descriptor: CInt, listening: Bool) -> Bool {
    sd_is_socket_unix(descriptor, CInt(SOCK_STREAM.rawValue), listening ? 1 : 0, nil, 0) > 0
  }

  /// What waits for the manager to read, oldest first: no more than there are calls of ``notify(_:)``, which are a few, and one for each
  /// descriptor that a run before had stored.
  private static var unsent: [String] = []
  private static var room: EventSource?

  /// Tells it; later, if it does not read at present. sd_notify(3) would wait for that, and the machine's callers with it.
  private static func notify(_ state: String) {
    unsent.append(state)
    if room == nil { send() }
  }

  /// Sends as much as there is room for now.
  private static func send() {
    while let state = unsent.first {
      // What is no such socket, or nobody's, keeps nobody waiting.
      if let socket = socket(), !socket.isThere { return watch(socket) }
      unsent.removeFirst()
      sd_notify(0, state)
    }
  }

  private static func socket() -> DatagramRoom? {
    getenv("NOTIFY_SOCKET").flatMap { try? DatagramRoom(at: FilePath(String(cString: $0))) }
  }

  private static func watch(_ socket: consuming DatagramRoom) {
    let raw = socket.takeDescriptor()
    room = try? EventSource.descriptor(raw, .writable) { _ in
      room.cancel()
      close(raw)
      send()
    }
    if room == nil { close(raw) }
  }
}
