import CSystemd
import Glibc

/// A process, told apart from a later one with its number (pidfd_open(2)).
public struct ProcessDescriptor: ~Copyable, Sendable {
  private let descriptor: OwnedDescriptor

  /// Of a running process, or of a child that has ended and was not reaped.
  ///
  /// - Throws: `ESRCH` if there is none of that number.
  public init(of process: CInt) throws(SystemdError) {
    let raw = pidfd_open(process, 0)
    guard raw >= 0 else { throw .last("pidfd_open") }
    descriptor = OwnedDescriptor(owning: raw)
  }

  /// Takes over a pidfd.
  public init(owning descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

  /// Its number, which becomes readable when the process has ended.
  public var raw: CInt { descriptor.raw }

  /// Sends it a signal, unless it has ended.
  public func signal(_ signal: CInt) { _ = pidfd_send_signal(raw, signal, nil, 0) }
}
