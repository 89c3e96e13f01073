import Glibc
import SystemdEvent
import SystemPackage

/// Whether this host can run guests under KVM.
enum KVM {
  /// Why not, in words for the user; nil if it can.
  ///
  /// The device alone proves nothing: there are hosts where it opens and guests die early, those without virtualization
  /// extensions in their processor among them.
  static func obstacle(device: FilePath = "/dev/kvm", processors: FilePath = "/proc/cpuinfo") -> String? {
    let descriptor = device.withPlatformString { open($0, O_RDWR | O_CLOEXEC) }
    guard descriptor >= 0 else { return "\(SystemdError.last(device.string))" }
    close(descriptor)
    #if arch(x86_64)
      guard hasVirtualizationExtensions(processors) else { return "the processor shows neither vmx nor svm" }
    #endif
    return nil
  }

  /// Looks for the flags in the first `flags` line; all processors have the same.
  private static func hasVirtualizationExtensions(_ processors: FilePath) -> Bool {
    guard let file = processors.withPlatformString({ fopen($0, "re") }) else { return false }
    defer { fclose(file) }
    var line: UnsafeMutablePointer<CChar>?
    var capacity = 0
    defer { free(line) }
    while getline(&line, &capacity, file) > 0, let line {
      let text = String(cString: line)
      guard text.hasPrefix("flags") else { continue }
      return text.split(whereSeparator: \.isWhitespace).contains { $0 == "vmx" || $0 == "svm" }
    }
    return false
  }
}
