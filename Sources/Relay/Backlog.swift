import SystemdEvent
import SystemdJSON

/// Bytes on their way to one descriptor, with the descriptors that came with them. How much may wait is for the owner to
/// bound.
struct Backlog: ~Copyable {
  private var bytes: [UInt8] = []
  private var sent = 0
  private var descriptors = PassedDescriptors()

  var isEmpty: Bool { sent == bytes.count }
  /// How many bytes wait.
  var count: Int { bytes.count - sent }

  /// The outcome of writing.
  enum Progress {
    /// All of it is out.
    case empty
    /// The rest waits until the descriptor is writable.
    case blocked
    /// The other side takes nothing any more; the rest was dropped.
    case broken
  }

  /// Writes `chunk` behind what waits, straight from where it is; only what does not go out at once is copied. The
  /// descriptors are taken.
  mutating func write(
    _ chunk: UnsafeRawBufferPointer, descriptors passed: inout PassedDescriptors, to output: Endpoint
  ) -> Progress {
    // A pipe's write waits when the pipe is full, so it is asked first whether it is writable.
    guard isEmpty, output.isSocket else {
      if sent > bytes.count / 2 {
        bytes.removeFirst(sent)
        sent = 0
      }
      bytes.append(contentsOf: chunk)
      // Descriptors that come behind bytes which wait go with the next byte that is written: sooner than they should, but
      // never later than the bytes that they belong to.
      if !passed.isEmpty { descriptors.append(passed.take()) }
      return output.isSocket ? flush(to: output) : .blocked
    }
    var offset = 0
    while offset < chunk.count {
      switch send(output.raw, isSocket: output.isSocket, UnsafeRawBufferPointer(rebasing: chunk[offset...]), descriptors: passed.raw) {
      case .bytes(let count):
        passed.close()
        offset += count
      case .wouldBlock:
        bytes.removeAll(keepingCapacity: true)
        bytes.append(contentsOf: chunk[offset...])
        sent = 0
        descriptors.append(passed.take())
        return .blocked
      case .failed:
        passed.close()
        return .broken
      }
    }
    return .empty
  }

  /// Keeps bytes until there is a descriptor to write them to. The descriptors are taken.
  mutating func hold(_ chunk: UnsafeRawBufferPointer, descriptors passed: inout PassedDescriptors) -> Progress {
    bytes.append(contentsOf: chunk)
    if !passed.isEmpty { descriptors.append(passed.take()) }
    return .blocked
  }

  /// ``write(_:descriptors:to:)`` without descriptors.
  mutating func write(_ chunk: UnsafeRawBufferPointer, to output: Endpoint) -> Progress {
    var none = PassedDescriptors()
    return write(chunk, descriptors: &none, to: output)
  }

  /// Writes on, after the descriptor became writable.
  mutating func flush(to output: Endpoint) -> Progress {
    while !isEmpty {
      let transfer = bytes.withUnsafeBytes {
        send(output.raw, isSocket: output.isSocket, UnsafeRawBufferPointer(rebasing: $0[sent...]), descriptors: descriptors.raw)
      }
      switch transfer {
      case .bytes(let count):
        descriptors.close()
        sent += count
      case .wouldBlock: return .blocked
      case .failed:
        drop()
        return .broken
      }
      // A pipe takes one buffer each time that it is writable; a second write might wait.
      if !output.isSocket, !isEmpty { return .blocked }
    }
    drop()
    return .empty
  }

  /// Forgets what waits, and its memory: an idle session holds none.
  mutating func drop() {
    bytes = []
    sent = 0
    descriptors.close()
  }
}

// What the next run of the daemon goes on with.
extension Backlog {
  @EventLoopActor func carried(_ handover: Handover) throws(SystemdError) -> JSONVariant {
    var numbers: [JSONVariant] = []
    for descriptor in descriptors.raw { numbers.append(try handover.add(descriptor)) }
    return .object(["bytes": .bytes(bytes[sent...]), "descriptors": .array(numbers)])
  }

  @EventLoopActor init(carried: JSONVariant, _ handover: Handover) throws(Handover.Failure) {
    guard let bytes = carried["bytes"]?.bytes, let numbers = carried["descriptors"]?.elements else {
      throw Handover.Failure("bytes under way that cannot be read")
    }
    self.bytes = bytes
    for number in numbers { if let descriptor = handover.take(number)?.take() { descriptors.append([descriptor]) } }
  }
}

/// A descriptor of somebody else's, and what kind it is.
struct Endpoint {
  let raw: CInt
  let isSocket: Bool

  init(_ descriptor: borrowing OwnedDescriptor) {
    raw = descriptor.raw
    isSocket = descriptor.isSocket
  }

  /// That of a descriptor that may be missing.
  static func of(_ descriptor: borrowing OwnedDescriptor?) -> Endpoint? {
    switch descriptor {
    case .some(let descriptor): Endpoint(descriptor)
    case .none: nil
    }
  }

  /// One that is known to be a socket.
  init(socket: borrowing OwnedDescriptor) {
    raw = socket.raw
    isSocket = true
  }
}
