import Glibc
import Logging
import SystemPackage
import SystemdEvent

/// A TPM that swtpm plays. QEMU takes it on its command line only.
@EventLoopActor
enum TPM {
  /// Starts swtpm.
  ///
  /// - Returns: QEMU's end of the socket between the two.
  static func start(state: FilePath?, option: String, logger: Logger) throws(OptionFailure) -> (OpenFile, DeviceProgram) {
    guard let program = DeviceProgram.find(["swtpm"]) else { throw OptionFailure(option, missing) }
    // What swtpm says of a folder that is not there comes later, and QEMU then speaks of an operation that failed.
    if let state, state.withPlatformString({ access($0, R_OK | W_OK | X_OK) }) != 0 {
      throw OptionFailure("--tpm-state=\(state)", "cannot use it: \(SystemdError.last("").errno)")
    }
    do throws(SystemdError) {
      let pair = try SocketPair()
      let theirs = try pair.theirs.duplicate()
      // A TPM that forgets has its state in a file that nobody else can find.
      let file = try UnnamedFile.make([])
      let storage = state.map { "dir=\($0)" } ?? "backend-uri=file:///dev/fd/\(ChildProcess.firstDescriptor + 1)"
      let process = try ChildProcess(
        program,
        ["socket", "--tpm2", "--tpmstate", storage, "--ctrl", "type=unixio,clientfd=\(ChildProcess.firstDescriptor),terminate"],
        descriptors: state == nil ? [theirs.raw, file.raw] : [theirs.raw], onLine: DeviceProgram.log(of: "swtpm", logger))
      return (OpenFile(pair.takeOurs()), DeviceProgram(name: "swtpm", option: option, process: process))
    } catch {
      throw OptionFailure(option, "\(error)")
    }
  }

  static let missing = "swtpm is not on PATH: install the package 'swtpm'"
}
