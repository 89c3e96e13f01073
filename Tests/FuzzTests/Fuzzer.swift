// The program that `make fuzz` runs; it is no part of the tests.
import CFuzzer
import Foundation
import Glibc
import SystemdEvent

/// `fuzz TARGET [ARGUMENT OF LIBFUZZER...]`
@main
enum Fuzzer {
  // Written once, before the fuzzer begins.
  nonisolated(unsafe) private static var target: FuzzTarget?

  static func main() {
    signal(SIGPIPE, SIG_IGN)
    let name = CommandLine.arguments.dropFirst().first ?? ""
    onLoop {
      if name == "--list" { FuzzTarget.all.forEach { print($0.name) } }
      target = FuzzTarget.all.first { $0.name == name }
    }
    if name == "--list" { return }
    guard target != nil else {
      complain("usage: fuzz TARGET [ARGUMENT OF LIBFUZZER...]\n       fuzz --list\n")
      exit(64)
    }
    var words: [UnsafeMutablePointer<CChar>?] =
      (CommandLine.arguments.prefix(1) + CommandLine.arguments.dropFirst(2)).map { strdup($0) } + [nil]
    var count = CInt(words.count - 1)
    words.withUnsafeMutableBufferPointer { words in
      var start = words.baseAddress
      exit(
        LLVMFuzzerRunDriver(&count, &start) { data, size in
          let bytes = Array(UnsafeBufferPointer(start: data, count: size))
          Fuzzer.onLoop { try await Fuzzer.target?.run(bytes) }
          return 0
        })
    }
  }

  private static func complain(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }

  // Touched on the one thread only.
  nonisolated(unsafe) private static var isDone = false

  /// Runs `body` on the loop, which is this thread's until it ends: to wait for another thread would take longer than most inputs. What it
  /// throws ends the process, which libFuzzer takes for a finding.
  private static func onLoop(_ body: @escaping @EventLoopActor @Sendable () async throws -> Void) {
    isDone = false
    startTask {
      do { try await body() } catch {
        complain("\(error)\n")
        abort()
      }
      isDone = true
    }
    do { try EventLoop.shared.run { !isDone } } catch {
      complain("the event loop failed: \(error)\n")
      exit(70)
    }
  }
}
