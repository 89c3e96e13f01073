public import SystemPackage

/// A drive beside the image, as systemd-vmspawn's `--extra-drive=[FORMAT:][DISKTYPE:]PATH` says it.
public struct ExtraDrive: Sendable, Equatable {
  public let path: FilePath
  public let format: ImageFormat
  /// Nil for that of the image.
  public let type: StorageConfiguration?
  /// What the user wrote.
  public let text: String

  /// Takes prefixes in this order only. What is no format and no disk type begins the path, colons included.
  public init(parsing text: String) throws(OptionValueError) {
    self.text = text
    var rest = Substring(text)
    format = Self.prefix(of: &rest, ImageFormat.init(rawValue:)) ?? .raw
    type = Self.prefix(of: &rest, StorageConfiguration.init(rawValue:))
    guard !rest.isEmpty else { throw OptionValueError("'\(text)' has no path") }
    // A path has a slash before its first colon, if it has any: what else stands there is a word that nobody knows.
    if let colon = rest.firstIndex(of: ":"), !rest[..<colon].contains("/") {
      throw OptionValueError(
        "'\(rest[..<colon])' is neither a format (raw, qcow2) nor a disk type (virtio-blk, virtio-scsi, nvme, scsi-cd); "
          + "a path with a colon must begin with / or ./")
    }
    path = FilePath(String(rest))
  }

  private static func prefix<Value>(of text: inout Substring, _ parse: (String) -> Value?) -> Value? {
    guard let colon = text.firstIndex(of: ":"), let value = parse(String(text[..<colon])) else { return nil }
    text = text[text.index(after: colon)...]
    return value
  }
}
