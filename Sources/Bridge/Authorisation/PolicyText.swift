/// A policy as it is written: a line is what is granted and to whom.
///
///     # comment
///     observe,control  user:alice  group:operators
///     full             user:1000
///     query            everybody
///
/// The classes are those of ``Privilege``, or `all`. `full` includes all others, `query` includes `observe`.
struct PolicyText {
  /// How long a policy may be, in bytes.
  static let longest = 64 << 10

  /// What is wrong, and in which line.
  struct Fault: Error, Equatable, CustomStringConvertible {
    let line: Int
    let reason: String
    var description: String { "line \(line): \(reason)" }
  }

  /// The ids that stand behind names; nil for a name that nobody has.
  struct Names {
    var user: (String) -> UInt32?
    var group: (String) -> UInt32?
  }

  /// - Parameter owner: who may do everything besides.
  static func policy(_ text: [UInt8], owner: UInt32, names: Names) throws(Fault) -> Policy {
    guard text.count <= longest else { throw Fault(line: 1, reason: "the policy is longer than \(longest) bytes") }
    var policy = Policy(owner: owner)
    for (index, bytes) in text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
      do throws(Complaint) { try read(bytes, into: &policy, names) } catch { throw Fault(line: index + 1, reason: error.reason) }
    }
    return policy
  }

  private struct Complaint: Error { let reason: String }

  private static func read(_ bytes: ArraySlice<UInt8>, into policy: inout Policy, _ names: Names) throws(Complaint) {
    guard bytes.allSatisfy({ (0x20...0x7E).contains($0) || $0 == UInt8(ascii: "\t") }) else {
      throw Complaint(reason: "a character that is not printable ASCII")
    }
    let line = String(decoding: bytes.prefix { $0 != UInt8(ascii: "#") }, as: UTF8.self)
    let words = line.split { $0 == " " || $0 == "\t" }
    guard let classes = words.first else { return }
    var granted: [Privilege] = []
    for name in classes.split(separator: ",", omittingEmptySubsequences: false) {
      if name == "all" {
        granted += Privilege.allCases
      } else if let privilege = Privilege(rawValue: String(name)) {
        granted.append(privilege)
      } else {
        let known = Privilege.allCases.map(\.rawValue).joined(separator: ", ")
        throw Complaint(reason: "there is no class '\(name)'; there are \(known) and all")
      }
    }
    guard words.count > 1 else { throw Complaint(reason: "it does not say to whom: user:NAME, group:NAME or everybody") }
    for word in words.dropFirst() {
      let grantee = try grantee(word, names)
      for privilege in granted { policy.grant(privilege, to: grantee) }
    }
  }

  private static func grantee(_ word: Substring, _ names: Names) throws(Complaint) -> Policy.Grantee {
    if word == "everybody" { return .everybody }
    guard let colon = word.firstIndex(of: ":"), word[..<colon] == "user" || word[..<colon] == "group" else {
      throw Complaint(reason: "'\(word)' is neither user:NAME nor group:NAME nor everybody")
    }
    let isUser = word[..<colon] == "user"
    let name = String(word[word.index(after: colon)...])
    // The highest id stands for none.
    if let id = UInt32(name), id != .max { return isUser ? .user(id) : .group(id) }
    guard let id = isUser ? names.user(name) : names.group(name) else {
      throw Complaint(reason: "there is no \(isUser ? "user" : "group") '\(name)'")
    }
    return isUser ? .user(id) : .group(id)
  }
}
