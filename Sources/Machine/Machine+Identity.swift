import SystemPackage
import SystemdEvent
import SystemdJSON

// Which machine this is, for those who keep lists of machines.
extension Machine {
  /// QEMU's process id. Nil for a QEMU that was attached to if it cannot be told: who listened at its socket may have been the program
  /// that started it.
  public var qemuProcess: Int32? {
    if let process { return process.id }
    guard let peer = control.serverProcess,
      let file = try? FileDescriptor.open("/proc/\(peer)/comm", .readOnly, options: .closeOnExec)
    else { return nil }
    defer { try? file.close() }
    let isQEMU = withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { buffer in
      let count = (try? file.read(into: buffer)) ?? 0
      return buffer[..<count].starts(with: "qemu".utf8)
    }
    return isQEMU ? peer : nil
  }

  /// The guest's UUID, 32 hexadecimal digits; nil if it was given none.
  public func uuid() async throws(MachineError) -> String? {
    do {
      let digits = try await control.execute("query-uuid")["UUID"]?.string?.filter { $0 != "-" }
      // QEMU's word for none.
      return digits?.allSatisfy { $0 == "0" } == true ? nil : digits
    } catch {
      throw .qmp(error)
    }
  }
}
