import Glibc
public import SystemPackage

/// A failed call into libsystemd or the kernel.
public struct SystemdError: Error, CustomStringConvertible, Equatable {
  /// What went wrong.
  public let errno: Errno
  /// What was being done: the C function's name, or a few words.
  public let call: String

  public init(_ call: String, _ errno: Errno) {
    self.errno = errno
    self.call = call
  }

  /// The error that the last system call of this thread left in `errno`.
  public static func last(_ call: String) -> SystemdError { SystemdError(call, Errno(rawValue: Glibc.errno)) }

  public var description: String { "\(call): \(errno)" }
}

/// Turns libsystemd's convention (a negative errno, or a result) into Swift's.
///
/// - Returns: `result`, when it is not negative.
@discardableResult
public func check(_ call: String, _ result: CInt) throws(SystemdError) -> CInt {
  guard result < 0 else { return result }
  throw SystemdError(call, Errno(rawValue: -result))
}

/// For calls that fail only when this program is wrong or the machine is out of memory.
package func mustSucceed(_ call: StaticString, _ result: CInt) {
  precondition(result >= 0, "\(call): \(Errno(rawValue: -result))")
}
