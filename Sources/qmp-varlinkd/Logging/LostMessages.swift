import Synchronization

/// Messages that are not logged, since whoever reads the log does not: it must not hold the daemon, and with it every caller. How many
/// they were is logged when it reads again.
final class LostMessages: Sendable {
  private let count = Mutex(0)

  /// - Parameters:
  ///   - hasRoom: whether there is room for a message.
  ///   - log: logs a message about those that were lost, if there are any, and the one that is to be logged.
  func unlessLost(_ hasRoom: Bool, _ log: (_ about: String?) -> Void) {
    guard hasRoom else { return count.withLock { $0 += 1 } }
    let lost = count.withLock { count in
      defer { count = 0 }
      return count
    }
    log(lost == 0 ? nil : "\(lost) messages were lost, since nobody read the log")
  }
}
