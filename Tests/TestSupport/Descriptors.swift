import Glibc
import SystemdEvent

/// Two connected stream sockets, as numbers whose owner is the caller.
public func socketPair() throws -> (ours: CInt, theirs: CInt) {
  let pair = try SocketPair()
  let theirs = try pair.theirs.duplicate()
  return (pair.takeOurs().take(), theirs.take())
}

/// A pipe's two ends, close-on-exec, as numbers whose owner is the caller.
public func pipePair() throws -> (reading: CInt, writing: CInt) {
  var ends: [CInt] = [-1, -1]
  guard pipe(&ends) == 0 else { throw SystemdError.last("pipe") }
  for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
  return (ends[0], ends[1])
}

/// Whether a number stands for an open file. Only for numbers that nothing else in the process can have taken since.
public func isOpen(_ descriptor: CInt) -> Bool { fcntl(descriptor, F_GETFD) >= 0 }

/// The inode behind a descriptor, which is the same for all descriptors of one open pipe.
public func inode(_ descriptor: CInt) -> UInt64? {
  var status = stat()
  return fstat(descriptor, &status) == 0 ? UInt64(status.st_ino) : nil
}

/// How many descriptors the process has. Only for a process of one's own: other tests open and close theirs meanwhile.
public func openDescriptorCount() throws -> Int {
  guard let folder = opendir("/proc/self/fd") else { throw SystemdError.last("/proc/self/fd") }
  defer { closedir(folder) }
  var count = 0
  while readdir(folder) != nil { count += 1 }
  return count
}
