import Glibc

/// The environment variables of this process.
public enum ProcessEnvironment {
  /// The value of one; nil if it is not set.
  public static func value(of name: String) -> String? { getenv(name).map { String(cString: $0) } }
}
