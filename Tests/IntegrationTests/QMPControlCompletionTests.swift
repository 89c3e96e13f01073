import Glibc
import SystemPackage
import SystemdEvent
import TestSupport
import Testing

@Suite("qmpctl's completions, in the shells", .onEventLoop)
struct QMPControlCompletionTests {
  /// A shell's variables, with qmpctl on its path.
  @EventLoopActor
  private func environment(_ folder: FilePath) -> [String: String] {
    let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
    return ["QMPCTL_PATH": folder.string, "PATH": "\(productsDirectory):\(path)", "HOME": folder.string, "TERM": "dumb"]
  }

  @EventLoopActor
  private func script(for shell: String) async throws -> String {
    let script = try await command(qmpctlProgram, ["--generate-completion-script", shell])
    guard script.status == 0 else { throw RunningDaemon.Failure(script.error) }
    return script.output
  }

  @Test("bash") @EventLoopActor
  func bash() async throws {
    try await withMachine { folder, _ in
      let file = try TemporaryFolder()
      let path = try await file.file("qmpctl", Array(script(for: "bash").utf8))
      // As readline does it.
      func complete(_ line: String) async throws -> [Substring] {
        let words = line.split(separator: " ", omittingEmptySubsequences: false)
        let program = """
          source '\(path)'
          COMP_WORDS=(\(words.map { "'\($0)'" }.joined(separator: " "))); COMP_CWORD=\(words.count - 1)
          COMP_LINE='\(line)'; COMP_POINT=\(line.utf8.count); COMP_TYPE=9; COMP_KEY=9
          function_name=$(complete -p qmpctl | sed -E 's/.*-F ([^ ]+) .*/\\1/')
          "$function_name" qmpctl '\(words.last ?? "")' '\(words.dropLast().last ?? "")' 2>&1
          printf '%s\\n' "${COMPREPLY[@]}"
          """
        let result = try await command("bash", ["-c", program], environment: environment(folder))
        return result.output.split(whereSeparator: \.isWhitespace)
      }
      #expect(try await complete("qmpctl status w") == ["web"])
      #expect(try await complete("qmpctl paus") == ["pause"])
      #expect(try await complete("qmpctl schema web query-stat").contains("query-status"))
      #expect(try await complete("qmpctl call web io.systemd.MachineInstance.Des") == ["io.systemd.MachineInstance.Describe"])
      #expect(try await complete("qmpctl storage add web x y --config v").contains("virtio-scsi"))
      withExtendedLifetime(file) {}
    }
  }

  @Test("fish") @EventLoopActor
  func fish() async throws {
    try await withMachine { folder, _ in
      let file = try TemporaryFolder()
      let path = try await file.file("qmpctl.fish", Array(script(for: "fish").utf8))
      func complete(_ line: String) async throws -> [Substring] {
        let result = try await command(
          "fish", ["--no-config", "-c", "source '\(path)'; complete -C '\(line)'"], environment: environment(folder))
        guard result.error == "" else { throw RunningDaemon.Failure(result.error) }
        return result.output.split(separator: "\n").map { $0.prefix { $0 != "\t" } }
      }
      #expect(try await complete("qmpctl status w") == ["web"])
      #expect(try await complete("qmpctl paus") == ["pause"])
      #expect(try await complete("qmpctl schema web query-stat").contains("query-status"))
      withExtendedLifetime(file) {}
    }
  }

  @Test("zsh, with a key pressed on a terminal") @EventLoopActor
  func zsh() async throws {
    try await withMachine { folder, _ in
      let file = try TemporaryFolder()
      try await file.file("_qmpctl", Array(script(for: "zsh").utf8))
      let setUp = "PS1='rea''dy> '; fpath=('\(file.path)' $fpath); autoload -U compinit; compinit -u -D\n"
      let shown = try await python(
        "terminal",
        [
          "--type", setUp, "--until", "ready> ", "--type", "qmpctl status w\t", "--until", "web",
          "--type", "\u{15}qmpctl schema web query-statu\t", "--until", "query-status", "--", "zsh", "-f", "-i",
        ], environment: environment(folder))
      #expect(shown.status == 0, "\(shown)")
      withExtendedLifetime(file) {}
    }
  }
}
