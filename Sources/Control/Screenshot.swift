import Glibc
import SystemdEvent
import SystemdJSON

/// A picture of a guest's screen.
public struct Screenshot: Sendable {
  /// The picture as PNG.
  public let png: [UInt8]
  /// In pixels.
  public let width: Int
  /// In pixels.
  public let height: Int

  /// The largest picture that is taken, in bytes.
  public static let mostBytes = 256 << 20
  private static let signature: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]

  /// - Returns: nil for what is no PNG.
  public init?(_ png: [UInt8]) {
    // The signature, and the head of the first chunk, which begins with width and height.
    guard png.count > 24, png.starts(with: Self.signature) else { return nil }
    func number(at offset: Int) -> Int { png[offset..<offset + 4].reduce(0) { $0 << 8 | Int($1) } }
    self.png = png
    width = number(at: 16)
    height = number(at: 20)
  }

  /// Takes one. QEMU gets a file in memory to write to, so that the two need not see the same files.
  ///
  /// - Parameters:
  ///   - device: the id of the display device; nil for the first.
  ///   - head: which of its heads; only with a device.
  /// - Throws: ``ControlError``.
  @EventLoopActor
  public static func take(of connection: MachineConnection, device: String?, head: Int?) async throws(ControlError) -> Screenshot {
    let file: OwnedDescriptor
    do throws(SystemdError) { file = try .inMemory("screenshot") } catch { throw ControlError(.failed, "\(error)") }
    // QEMU takes of a set the one that is open in the very way that it wants.
    let raw = open("/proc/self/fd/\(file.raw)", O_WRONLY | O_CLOEXEC)
    guard raw >= 0 else { throw ControlError(.failed, "\(SystemdError.last("/proc/self/fd"))") }
    let writing = OwnedDescriptor(owning: raw)
    let added = try await connection.execute("add-fd", .object([("opaque", .string("qmpctl screenshot"))]), descriptor: writing.raw)
    guard let set = added["fdset-id"]?.integer, let number = added["fd"]?.integer else {
      throw ControlError(.failed, "QEMU does not tell where it put the file")
    }
    var failure: ControlError?
    // By its set is the proper way, but QEMU 11.1 does not let go of a set that it wrote PNG to.
    for path in ["/proc/self/fd/\(number)", "/dev/fdset/\(set)"] {
      let arguments = JSONVariant.object([
        "filename": .string(path), "format": .string("png"), "device": device.map { .string($0) }, "head": head.map { .integer($0) },
      ])
      do throws(ControlError) {
        _ = try await connection.execute("screendump", arguments)
        failure = nil
        break
      } catch {
        failure = error
      }
    }
    _ = try? await connection.execute("remove-fd", .object([("fdset-id", .integer(set))]))
    if let failure { throw failure }
    guard let screenshot = Screenshot(contents(of: file)) else { throw ControlError(.failed, "QEMU wrote something else than a picture") }
    return screenshot
  }

  private static func contents(of file: borrowing OwnedDescriptor) -> [UInt8] {
    var status = stat()
    guard fstat(file.raw, &status) == 0, status.st_size > 0, status.st_size <= mostBytes else { return [] }
    return [UInt8](unsafeUninitializedCapacity: Int(status.st_size)) { buffer, count in
      while count < buffer.count {
        let read = pread(file.raw, buffer.baseAddress?.advanced(by: count), buffer.count - count, off_t(count))
        if read <= 0 { break }
        count += read
      }
    }
  }
}
