import OrderedCollections
import SystemdEvent
public import SystemPackage

extension SimulatedQEMU {
  /// A command that came.
  public struct ReceivedCommand: Sendable, Equatable {
    /// The how manieth it is, from 1, over all monitors.
    public let number: Int
    /// The id of the monitor that it came on.
    public let monitor: String
    /// What it is to execute; nil if it does not say that properly.
    public let name: String?
    public let isOutOfBand: Bool
    /// The command as it came, up to its first 65536 bytes.
    public let text: String
  }

  /// A point in the life of a command.
  public enum Moment: Sendable, CaseIterable {
    /// It has come, and others may be before it.
    case arrival
    /// Its turn has come.
    case beforeExecution
    /// It has been executed, and its reply is not out yet.
    case afterExecution
    /// Its reply is out, if there was to be one.
    case afterReply
  }

  /// A monitor as it is now.
  public struct MonitorState: Sendable, Equatable {
    public let id: String
    /// `control` for QMP, `readline` for HMP.
    public let mode: String
    public let chardev: String
    /// Added at run time.
    public let isDynamic: Bool
    public let isPretty: Bool
    /// `close-action` is `delete`.
    public let goesWithClient: Bool
    public let isConnected: Bool
    public let isNegotiated: Bool
    public let isOutOfBandEnabled: Bool
    /// The names of the descriptors that it has stored.
    public let descriptors: [String]
  }

  /// A chardev as it is now.
  public struct ChardevState: Sendable, Equatable {
    public let id: String
    /// What query-chardev tells.
    public let filename: String
    public let isInUse: Bool
    public let isConnected: Bool
    /// The file of the socket that it listens on, if it does.
    public let path: FilePath?
  }

  /// The monitors, in the order in which they were added.
  public var monitorStates: [MonitorState] {
    monitors.values.map { monitor in
      MonitorState(
        id: monitor.id, mode: monitor.mode.rawValue, chardev: monitor.chardev.id, isDynamic: monitor.isDynamic, isPretty: monitor.isPretty,
        goesWithClient: monitor.closeAction == .delete, isConnected: monitor.chardev.isConnected, isNegotiated: monitor.isNegotiated,
        isOutOfBandEnabled: monitor.isOutOfBandEnabled, descriptors: monitor.descriptors.keys.sorted())
    }
  }

  /// The chardevs, in the order in which they were added.
  public var chardevStates: [ChardevState] {
    chardevs.values.map {
      ChardevState(id: $0.id, filename: $0.filename, isInUse: $0.frontend != nil, isConnected: $0.isConnected, path: $0.path)
    }
  }

  /// The ids of the sets that add-fd has filled.
  public var fdsetIDs: [Int64] { fdsets.ids }

  /// How many descriptors monitors had stored that were removed since. QEMU keeps them for ever.
  public var orphanedDescriptorCount: Int { orphanedDescriptors.count }

  /// In words, what was made at run time and is still there; empty when everything has been taken back.
  public var leftovers: [String] {
    let stored = monitors.values.flatMap { monitor in
      monitor.descriptors.keys.sorted().map { "descriptor '\($0)' of monitor '\(monitor.id)'" }
    }
    let commandLine = Set(monitors.values.filter { !$0.isDynamic }.map(\.chardev.id))
    return monitors.values.filter(\.isDynamic).map { "monitor '\($0.id)'" }
      + chardevs.keys.filter { !commandLine.contains($0) }.map { "chardev '\($0)'" } + otherObjects.map { "object '\($0)'" } + stored
      + fdsets.ids.map { "fdset \($0)" } + (orphanedDescriptors.isEmpty ? [] : ["\(orphanedDescriptors.count) orphaned descriptors"])
  }
}
