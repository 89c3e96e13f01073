import Logging
import QMP
public import SystemdEvent
import SystemdJSON

/// Adds QMP monitors to the running machine, each on a socket of ours, and removes them.
///
/// Everything made in QEMU has an id that begins with ``prefix``. A monitor's chardev, its object and the name of its
/// descriptor are all called the same. They are kept short: QEMU pays for each byte that it reads.
@EventLoopActor
public final class Monitors {
  /// What the ids of everything that we make in QEMU begin with.
  public nonisolated static let prefix = "qv-"

  /// A monitor that was added.
  public struct Monitor: Sendable, Equatable {
    public let id: String
  }

  private let control: QMPClient
  private let logger: Logger
  private var counter = 0
  private var isSupported: Bool?
  /// The ids of the monitors that exist, or that are on their way in or out.
  public private(set) var ids: Set<String> = []

  init(control: QMPClient, logger: Logger) {
    self.control = control
    self.logger = logger
  }

  /// Starts counting behind what other daemons, dead or alive, have made in this QEMU.
  func continueNumbering() async throws(QMPError) {
    let results = await control.pipeline([
      QMPCommand("qom-list", .object(["path": .string("/objects")])), QMPCommand("query-chardev"),
    ])
    let names = try results[0].get().elements?.compactMap { $0["name"]?.string } ?? []
    let labels = try results[1].get().elements?.compactMap { $0["label"]?.string } ?? []
    for id in names + labels where id.hasPrefix(Self.prefix) {
      counter = max(counter, Int(id.dropFirst(Self.prefix.count), radix: 36) ?? 0)
    }
  }

  /// Adds a monitor on `socket`, QEMU's end of a connected pair. The caller then closes its copy, which would hide QEMU's
  /// end of file.
  ///
  /// When it returns, the greeting is on its way. When it throws, nothing of it is left in QEMU.
  ///
  /// - Throws: ``MachineError/notSupported(_:)`` if this QEMU has no monitors that can be added; ``MachineError/qmp(_:)``
  ///   with QEMU's words otherwise.
  public func add(on socket: borrowing OwnedDescriptor) async throws(MachineError) -> Monitor {
    try await requireSupport()
    counter += 1
    let id = Self.prefix + String(counter, radix: 36)
    ids.insert(id)
    let results = await control.pipeline([
      QMPCommand("getfd", .object(["fdname": .string(id)]), descriptors: [socket.raw]),
      QMPCommand(
        "chardev-add",
        .object([
          "id": .string(id),
          "backend": .object([
            "type": .string("socket"),
            "data": .object([
              "addr": .object(["type": .string("fd"), "data": .object(["str": .string(id)])]), "server": .boolean(false),
            ]),
          ]),
        ])),
      QMPCommand("object-add", .object(["qom-type": .string("monitor-qmp"), "id": .string(id), "chardev": .string(id)])),
    ])
    let failures = results.map(\.failure)
    guard let failure = failures.lazy.compactMap({ $0 }).first else { return Monitor(id: id) }
    // In reverse order, and only what was made.
    if failures[2] == nil { await undo("object-del", .object(["id": .string(id)])) }
    if failures[1] == nil {
      await undo("chardev-remove", .object(["id": .string(id)]))
    } else if failures[0] == nil {
      await undo("closefd", .object(["fdname": .string(id)]))
    }
    ids.remove(id)
    throw .qmp(failure)
  }

  /// Removes a drained monitor and its chardev. QEMU closes its end of the socket.
  ///
  /// No command may be under way on it: QEMU 11.1 can crash on that.
  public func remove(_ monitor: Monitor) async throws(MachineError) {
    let id = JSONVariant.string(monitor.id)
    defer { ids.remove(monitor.id) }
    for attempt in 0... {
      let results = await control.pipeline([
        QMPCommand("object-del", .object(["id": id])), QMPCommand("chardev-remove", .object(["id": id])),
      ])
      guard let failure = results.lazy.compactMap(\.failure).first else { return }
      // QEMU sets a monitor up in its other thread; one that was added a moment ago may still be at it.
      let isTooEarly = if case .execute(_, _, let desc) = failure { desc.contains("still initializing") } else { false }
      guard isTooEarly, attempt < 100 else { throw .qmp(failure) }
    }
  }

  /// Asks QEMU, once, for the type that the monitors are objects of.
  private func requireSupport() async throws(MachineError) {
    if isSupported == nil {
      do {
        let types = try await control.execute("qom-list-types", .object(["implements": .string("monitor-qmp")]))
        isSupported = types.elements?.isEmpty == false
      } catch {
        throw .qmp(error)
      }
    }
    if isSupported == false {
      throw .notSupported("this QEMU cannot add monitors while it runs (it has no monitor-qmp objects; QEMU 11.1 has)")
    }
  }

  private func undo(_ command: String, _ arguments: JSONVariant) async {
    do {
      try await control.execute(command, arguments)
    } catch {
      logger.warning("could not take back a half-made monitor: \(error)")
    }
  }
}

extension Result {
  /// The error, if it is one.
  var failure: Failure? { if case .failure(let failure) = self { failure } else { nil } }
}
