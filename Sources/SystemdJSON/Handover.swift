import CSystemd
import Glibc

public import SystemdEvent

/// What one run of a program leaves to the next, which goes on with its work: a JSON value, and the descriptors that it tells of by number.
///
/// It is built and taken apart piece by piece, by those whose work it is. The descriptors are this object's until they are taken.
@EventLoopActor
public final class Handover {
  /// What there is to know. Numbers in it that ``add(_:)`` gave are of descriptors.
  public var value = JSONVariant.null
  private var held: [CInt]

  /// Begins with nothing.
  public init() { held = [] }

  /// What a run before has left.
  ///
  /// - Parameters:
  ///   - value: as it was there.
  ///   - descriptors: by their numbers; -1 for one that was lost on the way. They are this object's from now on.
  public init(_ value: JSONVariant, descriptors: [CInt]) {
    self.value = value
    held = descriptors
  }

  /// Lets go of what nobody has taken.
  public func close() {
    for descriptor in held where descriptor >= 0 { Glibc.close(descriptor) }
    held = []
    value = .null
  }

  isolated deinit { close() }

  /// The descriptors by their numbers, which stay this object's; -1 for one that has been taken.
  public var descriptors: [CInt] { held }

  /// Adds a copy of a descriptor, which stays the caller's.
  ///
  /// - Returns: its number.
  public func add(_ descriptor: CInt) throws(SystemdError) -> JSONVariant {
    held.append(try Self.copy(of: descriptor))
    return .integer(held.count - 1)
  }

  /// A copy of the descriptor of a number, which can still be taken.
  public func copy(_ number: JSONVariant?) throws(SystemdError) -> OwnedDescriptor? {
    guard let place = place(of: number) else { return nil }
    return OwnedDescriptor(owning: try Self.copy(of: held[place]))
  }

  /// The descriptor of a number, once.
  ///
  /// - Returns: nil if there is none, or if it was lost on the way.
  public func take(_ number: JSONVariant?) -> OwnedDescriptor? {
    guard let place = place(of: number) else { return nil }
    defer { held[place] = -1 }
    return OwnedDescriptor(owning: held[place])
  }

  /// Where the descriptor of a number is, if it is there.
  private func place(of number: JSONVariant?) -> Int? {
    guard let place = number?.integer.map({ Int(clamping: $0) }), held.indices.contains(place), held[place] >= 0 else { return nil }
    return place
  }

  private static func copy(of descriptor: CInt) throws(SystemdError) -> CInt {
    let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
    guard copy >= 0 else { throw .last("dup") }
    return copy
  }
}

extension Handover {
  /// Why something that a run before has left cannot be gone on with.
  public struct Failure: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
  }
}

extension JSONVariant {
  /// Bytes, which need not be text, as a string in Base64.
  public static func bytes(_ bytes: some Collection<UInt8>) -> JSONVariant {
    var pointer: OpaquePointer?
    let result = Array(bytes).withUnsafeBytes { sd_json_variant_new_base64(&pointer, $0.baseAddress, $0.count) }
    precondition(result >= 0, "sd_json_variant_new_base64: errno \(-result)")
    return JSONVariant(owning: pointer)
  }

  /// The bytes, if it is a string in Base64.
  public var bytes: [UInt8]? {
    guard string != nil else { return nil }
    var buffer: UnsafeMutableRawPointer?
    var count = 0
    guard sd_json_variant_unbase64(pointer, &buffer, &count) >= 0 else { return nil }
    defer { free(buffer) }
    return Array(UnsafeRawBufferPointer(start: buffer, count: count))
  }
}
