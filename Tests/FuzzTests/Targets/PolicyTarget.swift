@testable import Bridge

/// Any policy is refused with a line that it has, or says the same whatever the order of its lines; and never takes anything from the
/// daemon's owner.
enum PolicyTarget {
  private static func id(_ name: String) -> UInt32? { name == "a" ? 7 : nil }

  static func run(_ bytes: [UInt8]) throws {
    let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    do throws(PolicyText.Fault) {
      let policy = try read(bytes)
      let reversed = try read(Array(lines.reversed().joined(separator: [UInt8(ascii: "\n")])))
      for privilege in Privilege.allCases {
        for user: UInt32 in [0, 7, 900, 1000, .max] {
          let (one, other) = (permits(policy, privilege, user), permits(reversed, privilege, user))
          if one != other { throw PolicyText.Fault(line: 0, reason: "\(privilege) for \(user): \(one), and in another order \(other)") }
          if user == 0 || user == 900, !one { throw PolicyText.Fault(line: 0, reason: "\(user) has not \(privilege)") }
        }
      }
    } catch {
      try demand((1...lines.count).contains(error.line), "\(error)")
    }
  }

  private static func read(_ bytes: [UInt8]) throws(PolicyText.Fault) -> Policy {
    try PolicyText.policy(bytes, owner: 900, names: PolicyText.Names(user: id, group: id))
  }

  private static func permits(_ policy: Policy, _ privilege: Privilege, _ user: UInt32) -> Bool {
    policy.permits(privilege, user: user, groups: { [user &+ 1, 7] })
  }
}
