/// Who may do what. The owner of the daemon and root may do everything, others what they are granted.
public struct Policy: Sendable {
  /// To whom something is granted.
  enum Grantee: Hashable, Sendable {
    case user(UInt32)
    case group(UInt32)
    case everybody
  }

  private let owner: UInt32
  private var grants: [Privilege: Set<Grantee>] = [:]

  /// Nothing for others.
  ///
  /// - Parameter owner: the user that the daemon runs as.
  public init(owner: UInt32) { self.owner = owner }

  /// Whether anybody but the owner and root may do anything.
  public var grantsOthers: Bool { !grants.isEmpty }

  /// Whether a user may do something.
  ///
  /// - Parameter groups: all groups of the user's process; asked for only where it matters.
  func permits(_ privilege: Privilege, user: UInt32?, groups: () -> [UInt32]) -> Bool {
    guard let user else { return false }
    if user == owner || user == 0 { return true }
    guard let grantees = grants[privilege] else { return false }
    if grantees.contains(.everybody) || grantees.contains(.user(user)) { return true }
    guard grantees.contains(where: { if case .group = $0 { true } else { false } }) else { return false }
    return groups().contains { grantees.contains(.group($0)) }
  }

  /// Whether a user may do anything at all.
  func knows(user: UInt32?, groups: () -> [UInt32]) -> Bool {
    lazy var found = groups()
    return Privilege.allCases.contains { permits($0, user: user, groups: { found }) }
  }

  mutating func grant(_ privilege: Privilege, to grantee: Grantee) {
    for implied in privilege.implied { grants[implied, default: []].insert(grantee) }
  }
}
