import Glibc
public import SystemPackage

/// Descriptors that came with bytes over a socket; closed unless they are taken.
public struct PassedDescriptors: ~Copyable, Sendable {
  public private(set) var raw: [CInt]

  public init(owning raw: [CInt] = []) { self.raw = raw }

  deinit { for descriptor in raw { _ = Glibc.close(descriptor) } }

  public var isEmpty: Bool { raw.isEmpty }

  /// Closes what is held.
  public mutating func close() {
    for descriptor in raw { _ = Glibc.close(descriptor) }
    raw = []
  }

  /// Gives them all to the caller, who must close them.
  public mutating func take() -> [CInt] {
    defer { raw = [] }
    return raw
  }

  /// Takes in descriptors that the caller owned.
  public mutating func append(_ more: [CInt]) { raw += more }
}

/// The outcome of a system call that does not wait.
public enum Transfer: Equatable {
  /// So many bytes moved. 0 on reading is the end of the stream.
  case bytes(Int)
  /// Nothing can move now.
  case wouldBlock
  /// Nothing will move any more.
  case failed(Errno)
}

/// The most descriptors that are taken from one message. Linux passes one more (SCM_MAX_FD), QEMU takes 16; with these the control
/// data has room on the stack.
public let maximumPassedDescriptors = 252

private let headerSize = MemoryLayout<cmsghdr>.size
private let controlSize = headerSize + maximumPassedDescriptors * MemoryLayout<CInt>.size

/// Reads what is there, without waiting and whatever the descriptor's flags, into `buffer`. Descriptors that came along
/// are added to `descriptors`, close-on-exec. On anything but a socket it is read(2), which waits if nothing is there.
public func receive(
  _ descriptor: CInt, isSocket: Bool, into buffer: UnsafeMutableRawBufferPointer, descriptors: inout PassedDescriptors
) -> Transfer {
  guard isSocket else { return outcome { read(descriptor, buffer.baseAddress, buffer.count) } }
  return withUnsafeTemporaryAllocation(byteCount: controlSize, alignment: MemoryLayout<cmsghdr>.alignment) { control in
    var vector = iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
    var received: [CInt] = []
    let result = withUnsafeMutablePointer(to: &vector) { vector in
      var message = msghdr()
      message.msg_iov = vector
      message.msg_iovlen = 1
      message.msg_control = control.baseAddress
      message.msg_controllen = controlSize
      let result = outcome { recvmsg(descriptor, &message, CInt(MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) }
      if case .bytes = result { received = passedDescriptors(in: UnsafeRawBufferPointer(control), length: message.msg_controllen) }
      return result
    }
    if !received.isEmpty { descriptors.append(received) }
    return result
  }
}

/// Writes what can be written of `buffer` without waiting, with `descriptors` attached to its first byte; the descriptors
/// stay the caller's. On anything but a socket it is write(2) of at most PIPE_BUF bytes, which does not wait on a pipe
/// that poll(2) calls writable; descriptors cannot go that way and are left out.
public func send(_ descriptor: CInt, isSocket: Bool, _ buffer: UnsafeRawBufferPointer, descriptors: [CInt] = []) -> Transfer {
  guard isSocket else { return outcome { write(descriptor, buffer.baseAddress, min(buffer.count, Int(PIPE_BUF))) } }
  let flags = CInt(MSG_DONTWAIT | MSG_NOSIGNAL)
  guard !descriptors.isEmpty else { return outcome { Glibc.send(descriptor, buffer.baseAddress, buffer.count, flags) } }
  return withUnsafeTemporaryAllocation(byteCount: controlSize, alignment: MemoryLayout<cmsghdr>.alignment) { control in
    var vector = iovec(iov_base: UnsafeMutableRawPointer(mutating: buffer.baseAddress), iov_len: buffer.count)
    return withUnsafeMutablePointer(to: &vector) { vector in
      let payload = descriptors.count * MemoryLayout<CInt>.size
      var header = cmsghdr()
      header.cmsg_len = headerSize + payload
      header.cmsg_level = SOL_SOCKET
      header.cmsg_type = CInt(SCM_RIGHTS)
      control.storeBytes(of: header, as: cmsghdr.self)
      descriptors.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: control[headerSize...]).copyMemory(from: $0) }
      var message = msghdr()
      message.msg_iov = vector
      message.msg_iovlen = 1
      message.msg_control = control.baseAddress
      message.msg_controllen = headerSize + payload
      return outcome { sendmsg(descriptor, &message, flags) }
    }
  }
}

/// The descriptors of every SCM_RIGHTS message in a control buffer.
private func passedDescriptors(in control: UnsafeRawBufferPointer, length: Int) -> [CInt] {
  var found: [CInt] = []
  var offset = 0
  let alignment = MemoryLayout<Int>.size
  while offset + headerSize <= length {
    let header = control.loadUnaligned(fromByteOffset: offset, as: cmsghdr.self)
    guard header.cmsg_len >= headerSize, offset + header.cmsg_len <= length else { break }
    if header.cmsg_level == SOL_SOCKET, header.cmsg_type == CInt(SCM_RIGHTS) {
      for index in 0..<(header.cmsg_len - headerSize) / MemoryLayout<CInt>.size {
        found.append(control.loadUnaligned(fromByteOffset: offset + headerSize + index * MemoryLayout<CInt>.size, as: CInt.self))
      }
    }
    offset += (header.cmsg_len + alignment - 1) / alignment * alignment
  }
  return found
}

private func outcome(_ call: () -> Int) -> Transfer {
  while true {
    let count = call()
    if count >= 0 { return .bytes(count) }
    switch errno {
    case EINTR: continue
    case EAGAIN: return .wouldBlock
    case let number: return .failed(Errno(rawValue: number))
    }
  }
}
