public import SystemPackage

/// A folder of the host that the guest mounts: systemd-vmspawn's `--bind=SOURCE[:TARGET]`.
public struct BindMount: Sendable, Equatable {
  public let source: FilePath
  /// Where the guest mounts it.
  public let target: FilePath
  public let isReadOnly: Bool
  /// What the user wrote.
  public let text: String

  /// A colon that belongs to a path is written `\:`. Without a target it is the source.
  public init(parsing text: String, isReadOnly: Bool) throws(OptionValueError) {
    self.text = text
    self.isReadOnly = isReadOnly
    var parts = [""]
    var characters = text.makeIterator()
    while let character = characters.next() {
      if character == "\\", let next = characters.next() {
        parts[parts.count - 1].append(next)
      } else if character == ":" {
        parts.append("")
      } else {
        parts[parts.count - 1].append(character)
      }
    }
    guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty }) else { throw OptionValueError("'\(text)' is not SOURCE[:TARGET]") }
    source = FilePath(parts[0])
    target = FilePath(parts[parts.count - 1])
    guard target.isAbsolute else { throw OptionValueError("where the guest mounts it must be an absolute path: '\(target)' is not") }
  }

  /// A line of fstab(5) that mounts it in the guest, early enough for its services.
  func mountLine(tag: String) -> String {
    "\(tag) \(Self.escaped(target.string)) virtiofs \(isReadOnly ? "ro" : "rw"),x-initrd.mount\n"
  }

  /// White space and backslashes, as fstab(5) wants them.
  private static func escaped(_ path: String) -> String {
    // Not by characters: a carriage return and a line's end are one.
    path.unicodeScalars.reduce(into: "") { text, scalar in
      switch scalar {
      case " ": text += "\\040"
      case "\t": text += "\\011"
      case "\n": text += "\\012"
      case "\\": text += "\\134"
      default: text.unicodeScalars.append(scalar)
      }
    }
  }
}
